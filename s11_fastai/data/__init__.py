"""From an ImageSet or arrays to fastai's DataLoaders."""
