"""Callbacks for a fastai Learner; none of them knows a run folder."""
