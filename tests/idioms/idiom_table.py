"""What people type at a fastai Learner, a line each: to add an idiom, add a line.

A line sees `learn`, `dls`, `files` (paths of four PNGs), all that fastai.vision.all exports, and
the names of `test_idioms.py`. Where it ends in an expression, that is what it gives.
"""

# It gives the same values as on stock fastai.
SAME = """
# What the loaders are and hold
dls.vocab
dls.c, dls.bs, dls.n, dls.n_inp, torch.device(dls.device), len(dls)
len(dls.train), len(dls.valid), len(dls.train_ds), len(dls.valid_ds)
dls.train_ds[3][1], dls.valid_ds[2][1], dls.valid_ds.split_idx
dls.train_ds.vocab, dls.vocab.o2i["3"], dls.vocab.map_ids([1, 2]), dls.categorize.vocab
dls.train_ds.categorize.decode(TensorCategory(3)), dls.tfms[1][-1].vocab
dls.train.shuffle, dls.valid.shuffle, dls.train.drop_last
[np.array(image) for image, _ in dls.valid_ds[:2]], dls.train_ds[0]
dls.valid.do_item(3), dls.valid.do_batch([dls.valid.do_item(i) for i in range(3)])
dls.new_empty().valid.n
dls.after_batch.normalize.mean, dls.after_batch.normalize.std
dls.after_batch.int_to_float_tensor.div
sorted(y for b in dls.train for y in b[1].tolist())
sorted(y for b in dls.train.new(bs=7) for y in b[1].tolist())
# Batches without chance
dls.valid.one_batch()
next(iter(dls.valid))
[x.shape for x, y in dls.valid]
dls.cpu().valid.one_batch()[0].device, dls.to(torch.device("cpu")).device
dls.valid.new(bs=5).one_batch()
dls.valid.new(bs=5, drop_last=True).one_batch()[1]
dls.train.new(shuffle=False, after_batch=None).one_batch()[1]
dls.train.new(get_idxs=lambda: list(range(8))).one_batch()[1]
dls.train.new(get_idxs=lambda: [3] * 8).one_batch()[1]
dls.valid.new(num_workers=1).one_batch()
dls.valid.new(dls.valid_ds).one_batch()
dls.train.shuffle = False; dls.train.one_batch()[1]
dls.train.drop_last = True; len(dls.train)
dls.add_tfms([Resize(16)], "after_item"); dls.valid.one_batch()
dls.add_tfms([Resize((24, 20), ResizeMethod.Squish)], "after_item"); dls.test_dl(files).one_batch()
dls.valid.new(after_item=[RandomResizedCrop(24), ToTensor()]).one_batch()
DataLoaders(dls.train, dls.valid).valid.one_batch()
pickle.loads(pickle.dumps(dls)).valid.one_batch()
copy.deepcopy(dls).valid.one_batch()
TfmdDL(dls.valid_ds, bs=4, after_item=ToTensor, after_batch=IntToFloatTensor).one_batch()
DataLoaders.from_dsets(dls.train_ds, dls.valid_ds, bs=4, after_item=ToTensor).valid.one_batch()
dls.valid.before_batch = noop; dls.valid.one_batch()
dls.valid.after_item = lambda t: (ToTensor()(t[0]), t[1]); dls.valid.one_batch()
# Pictures without chance
dls.valid.show_batch()
dls.valid.show_batch(max_n=4, nrows=1, figsize=(6, 2))
dls.valid.show_batch(b=dls.valid.one_batch(), max_n=2)
dls.valid.show_batch(unique=True)
dls.train_ds.show(dls.train_ds[0]); show_at(dls.train_ds, 0); dls.valid_ds[0][0].show()
dls.valid.show_results(dls.valid.one_batch(), torch.zeros(16).long())
x, = first(dls.test_dl(files)); TensorImage(dls.train.decode((x,))[0][0]).show()
# Other pictures
dls.test_dl(files).one_batch()
dls.test_dl(files, bs=2).n
learn.dls.valid = dls.test_dl(files); learn.dls.test_dl(files).one_batch()
dls.test_dl([tensor(Image.open(f)) for f in files]).one_batch()
dls.test_dl([PILImage.create(files[0])]).one_batch()
dls.test_dl([np.array(Image.open(f)) for f in files]).one_batch()
dls.test_dl(dls.valid_ds.items[:3], with_labels=True).one_batch()
dls.test_dl(files, with_labels=True).one_batch()
learn.validate(dl=dls.test_dl(files, with_labels=True))
interpreted(dl=dls.test_dl(files, with_labels=True)).confusion_matrix()
dls.test_dl(files).show_batch()
learn.predict(files[0])
learn.predict(str(files[0]))
learn.predict(files[0], None, False)
learn.predict(PILImage.create(files[1]))
learn.predict(np.array(Image.open(files[1])))
learn.predict(dls.valid_ds.items[2])
learn.predict(dls.valid_ds[0][0])
learn.predict(ToTensor()(PILImage.create(files[0])))
learn.get_preds(dl=dls.test_dl(files), with_decoded=True, with_input=True)
dls.loaders.append(dls.test_dl(files)); learn.get_preds(ds_idx=2)
learn.show_results(dl=dls.test_dl(dls.valid_ds.items[:4], with_labels=True))
# Evaluation
learn.get_preds()
learn.get_preds(ds_idx=1, with_input=True, with_decoded=True, with_loss=True)
learn.get_preds(with_targs=False)
learn.get_preds(with_preds=False, with_loss=True)
learn.get_preds(act=noop)
learn.get_preds(reorder=False)
accuracy(*learn.get_preds())
xb, yb = dls.valid.one_batch(); accuracy(learn.model.eval()(xb), yb)
with learn.validation_context(): learn._do_epoch_validate(1)
with learn.loss_not_reduced(): learn.loss_func(torch.zeros(3, 10), torch.zeros(3).long())
learn.get_preds(dl=dls.valid)
learn.get_preds(dl=dls.valid.new(shuffle=True))
learn.get_preds(dl=[dls.valid.one_batch()])
learn.get_preds(ds_idx=0)[1]
learn.get_preds(save_preds=Path(learn.path)); len(list(Path(learn.path).glob("*")))
learn.validate()
learn.validate(ds_idx=1)
learn.validate(dl=dls.valid)
learn.validate(dl=dls.test_dl(dls.valid_ds.items[:8], with_labels=True))
learn.metrics = [accuracy, error_rate]; learn.validate()
learn.metrics = [partial(top_k_accuracy, k=3), F1Score(average="macro")]; learn.validate()
learn.loss_func = LabelSmoothingCrossEntropyFlat(); learn.validate()
learn.loss_func = FocalLossFlat(); learn.validate()
learn.loss_func = nn.CrossEntropyLoss(); learn.validate()
learn.loss_func = nn.CrossEntropyLoss(); learn.get_preds(act=noop, with_loss=True)
learn.show_results()
learn.show_results(max_n=4, shuffle=False)
learn.show_results(dl=dls.valid, max_n=3, nrows=1)
learn.model.eval()(dls.valid.one_batch()[0])
total_params(learn.model)
# What a Learner is and keeps
list(inspect.signature(learn.fit_one_cycle).parameters)
list(inspect.signature(learn.predict).parameters)
isinstance(learn, Learner), learn.model_dir, learn.dls.vocab, learn.metrics.attrgot("name")
learn.save("a"); learn.load("a").get_preds()
learn.save("a", with_opt=False); learn.load("a", with_opt=False).get_preds()
copy.deepcopy(learn).get_preds()
learn.dls = DataLoaders(dls.train.new(bs=8), dls.valid.new(bs=8)); learn.get_preds()
learn.opt_func = Adam; learn.create_opt(); learn.opt.hypers
learn.create_opt(); learn.opt.set_hyper("lr", 1e-3); learn.opt.hypers
learn.loss_func.activation(torch.zeros(1, 10)), learn.loss_func.decodes(torch.eye(10))
learn.layer1 is learn.model.layer1
learn.create_opt(); learn.opt.step(closure=None)
# Interpretation
found.confusion_matrix()
found.most_confused(min_val=1)
found.plot_confusion_matrix()
found.plot_confusion_matrix(normalize=True, figsize=(4, 4))
found.plot_top_losses(4)
found.plot_top_losses(4, nrows=2, largest=False)
found.plot_top_losses([0, 2])
found.show_results([0, 3])
found.top_losses(5)
found.top_losses()[0].shape, len(found.top_losses(5, items=True)[2])
found.print_classification_report()
Interpretation.from_learner(learn).top_losses(3)
interpreted(dl=dls.test_dl(dls.valid_ds.items[:8], with_labels=True)).confusion_matrix()
interpreted(ds_idx=0).confusion_matrix().sum(1)
# One lr for each group of parameters
learn.fit_one_cycle(2, 1e-2, div=4, div_final=8, pct_start=0.5); learn.recorder.lrs[0::3]
learn.fit_one_cycle(1, slice(1e-3, 1e-2), div_final=25, pct_start=0.5); learn.recorder.lrs[0]
grouped(learn).fit_one_cycle(1, slice(1e-4, 1e-2), 10); lrs_at_start(learn)
grouped(learn).fit_one_cycle(1, slice(1e-2), 10); lrs_at_start(learn)
grouped(learn).fit_one_cycle(1, np.array([1e-4, 1e-3, 1e-2]), 10); lrs_at_start(learn)
grouped(learn).fit_one_cycle(1, [1e-4, 1e-3, 1e-2], 10); lrs_at_start(learn)
grouped(learn).fit_one_cycle(1, 1e-2, 10); lrs_at_start(learn)
grouped(learn).fit(1, slice(1e-4, 1e-2)); lrs_at_start(learn)
grouped(learn).fine_tune(1); frozen(learn)
grouped(learn).freeze(); frozen(learn)
grouped(learn).freeze_to(1); learn.fit_one_cycle(1); learn.unfreeze(); frozen(learn)
grouped(learn).freeze_to(-2); frozen(learn)
learn.freeze(); learn.fit(1); learn.unfreeze(); frozen(learn)
"""

# Something in it is drawn by chance: it gives the same types, dtypes, shapes and names.
ALIKE = """
# Batches
dls.one_batch()
next(iter(dls.train))
differ(dls.train.one_batch()[0], dls.train.one_batch()[0])
differ(next(iter(dls.train))[0], next(iter(dls.train))[0])
dls.show_batch()
dls.show_batch(max_n=4, nrows=1)
dls.show_batch(nrows=2, ncols=3, figsize=(4, 4))
dls.show_batch(unique=True); dls.show_batch(b=dls.one_batch()); learn.fit(1)
dls.train.new(get_idxs=lambda: list(range(16))).one_batch()
dls.train.new(cls=WeightedDL, wgts=np.arange(1, 49)).one_batch()
half = dls.train.new(cls=PartialDL, partial_n=32); len(half), half.one_batch(), len(list(half))
dls.train.new(cls=TfmdDL).one_batch()
dls.train.new(shuffle=False).one_batch()
dls.train.bs = 8; dls.train.one_batch()
dls.train.new(bs=4, drop_last=True).one_batch()
dls.train.new(n=20).one_batch()
dls.train.new(torch.utils.data.Subset(dls.train_ds, range(8))).one_batch()
dls.valid.new(dls.train_ds, shuffle=True).one_batch()
[len(y) for x, y in dls.train.new(num_workers=1)]
# Transforms
dls.add_tfms([Brightness()], "after_batch"); dls.one_batch()
dls.add_tfms([Flip(), Rotate(), Zoom()], "after_batch"); dls.one_batch()
dls.add_tfms(aug_transforms(), "after_batch", "train"); dls.one_batch()
dls.add_tfms(aug_transforms(size=24), "after_batch"); dls.valid.one_batch()
dls.add_tfms([RandomErasing(p=1.0)], "after_batch"); dls.one_batch()
dls.add_tfms([Brightness()], "after_batch"); learn.fit(1); learn.tta()
dls.add_tfms([Contrast(), Saturation(), Hue()], "after_batch"); learn.fit(1); dls.show_batch()
dls.add_tfms([FlipItem(1.0), Resize(16)], "after_item"); dls.one_batch()
dls.train.new(after_item=[RandomResizedCrop(24), ToTensor()]).one_batch()
dls.train.after_batch.add(Brightness()); dls.one_batch()
dls.train.new(after_batch=[IntToFloatTensor(), *aug_transforms()]).one_batch()
# Fits
learn.fit(1); learn.recorder.values
learn.fit(2, 1e-3); learn.recorder.values, learn.recorder.metric_names
learn.fit(1, lr=1e-3, wd=0.1); learn.opt.hypers[0]["wd"]
learn.fit(1, slice(1e-4, 1e-2)); learn.recorder.lrs
learn.fit(2, start_epoch=1); len(learn.recorder.losses)
learn.fit(1, reset_opt=True)
for _ in range(2): learn.fit(1)
learn.fit_one_cycle(1); learn.recorder.values
learn.fit_one_cycle(1, lr_max=3e-3, div=10, div_final=100, pct_start=0.3, wd=0.01)
learn.fit_one_cycle(2, 1e-2, start_epoch=1); len(learn.recorder.losses)
learn.fit_one_cycle(1, 1e-2, reset_opt=True, cbs=[TerminateOnNaNCallback()])
learn.fit_one_cycle(1, moms=(0.95, 0.85, 0.95)); learn.recorder.plot_sched()
learn.fit_one_cycle(1, moms=(0.95, 0.85, 0.95)); learn.recorder.hps
learn.fine_tune(1); learn.recorder.values
learn.fine_tune(2, base_lr=1e-3, freeze_epochs=2); len(learn.recorder.losses)
learn.fit_one_cycle(1); learn.recorder.plot_sched("lr")
learn.fit_flat_cos(1, 1e-3); learn.recorder.plot_sched()
learn.fit_sgdr(2, 1); learn.recorder.plot_sched()
learn.fit(1, cbs=ParamScheduler({"lr": SchedExp(1e-3, 1e-2)})); learn.recorder.lrs
learn.fit(1, cbs=ParamScheduler({"lr": combined_cos(0.3, 1e-3, 1e-2, 1e-4)})); learn.recorder.hps
learn.fit(3); learn.recorder.plot_loss(skip_start=0, with_valid=True, show_epochs=True)
learn.lr_find(num_it=24, stop_div=False, suggest_funcs=(minimum, steep, valley, slide))
learn.fit_one_cycle(1, learn.lr_find(num_it=22, show_plot=False).valley)
attempt(lambda: learn.fit(1, cbs=Fails())); learn.fit(1); len(learn.recorder.losses)
# Evaluation that draws
learn.tta()
learn.tta(n=2, beta=None)
learn.tta(ds_idx=0, n=1)
learn.tta(use_max=True, n=2)
learn.tta(dl=dls.test_dl(files), n=1)
learn.tta(n=1, item_tfms=ToTensor, batch_tfms=[IntToFloatTensor(), Flip()])
learn.get_preds(ds_idx=0)
learn.get_preds(dl=dls.train)
learn.get_preds(dl=dls.train, reorder=False, with_input=True)
learn.validate(ds_idx=0), learn.validate(dl=dls.train)
learn.show_results(ds_idx=0, max_n=2)
interpreted(ds_idx=0).plot_top_losses(4)
interpreted(ds_idx=0).top_losses(3)
interpreted(dl=dls.train.new(shuffle=False)).plot_confusion_matrix()
# Saved, copied, changed
learn.save("b"); learn.fit(1); learn.load("b")
learn.fit(1); learn.save("b", with_opt=True); learn.load("b", with_opt=True); learn.fit(1)
learn.export(); load_learner(learn.path / "export.pkl").predict(files[0])
learn.fit(1); learn.export("e.pkl"); learn.fit(1)
learn.export(); new = load_learner(learn.path / "export.pkl"); new.validate(dl=dls.valid)
learn.export("f.pkl"); load_learner(learn.path / "f.pkl").dls.vocab
copy.deepcopy(learn).fit(1)
learn.to_fp32().fit(1)
learn.to_channelslast(use_amp=False).fit(1); learn.to_contiguous().fit(1)
learn.to_fp16().to_fp32().fit(1)
learn.to_fp16().fit(1); learn.recorder.values
learn.dls = DataLoaders(dls.train.new(bs=8), dls.valid); learn.fit(1); len(learn.recorder.losses)
dls.train = dls.train.new(get_idxs=lambda: [*range(16)]); learn.fit(1); learn.recorder.values
learn.add_cbs([GradientClip(), TerminateOnNaNCallback]); learn.cbs.attrgot("name")[-2:]
learn.add_cb(GradientClip()); learn.remove_cb(GradientClip); hasattr(learn, "gradient_clip")
with learn.no_bar(), learn.no_logging(): learn.fit(1)
with learn.added_cbs(GradientClip()), learn.no_mbar(): learn.fit(1)
learn.summary().split("Optimizer used")[0]
learn.show_training_loop()
# Callbacks
learn.add_cb(ShowGraphCallback()); learn.fit(2)
learn.add_cb(CSVLogger()); learn.fit(1); learn.csv_logger.read_log().columns.tolist()
learn.fit(1, cbs=CSVLogger("h.csv", append=True)); (learn.path / "h.csv").exists()
learn.fit(2, cbs=SaveModelCallback(monitor="accuracy")); (learn.path / "models/model.pth").exists()
learn.fit(1, cbs=SaveModelCallback(fname="best", with_opt=True)); learn.load("best", with_opt=True)
learn.fit(2, cbs=SaveModelCallback(every_epoch=True)); len([*(learn.path / "models").iterdir()])
learn.fit(2, cbs=SaveModelCallback("accuracy", at_end=True, comp=np.greater, min_delta=0.01))
learn.fit(3, cbs=EarlyStoppingCallback("accuracy", min_delta=2)); learn.recorder.values
learn.fit(2, cbs=ReduceLROnPlateau(min_delta=9, patience=1)); learn.opt.hypers[-1]["lr"]
learn.fit(2, cbs=TrackerCallback("train_loss"))
learn.fit(1, cbs=MixUp(0.3)); learn.recorder.values, learn.show_results()
learn.fit(1, cbs=CutMix()); learn.recorder.values
learn.fit(1, cbs=GradientAccumulation(32)); learn.recorder.values
learn.fit(1, cbs=GradientClip(0.1)); learn.recorder.values
seen = ActivationStats(with_hist=True); learn.fit(1, cbs=seen); seen.stats[0][0].keys()
seen = ActivationStats(with_hist=True); learn.fit(1, cbs=seen); seen.plot_layer_stats(0)
seen = ActivationStats(with_hist=True); learn.fit(1, cbs=seen); seen.color_dim(0)
learn.fit(1, cbs=ShortEpochCallback(0.3)); len(learn.recorder.losses)
learn.fit(1, cbs=ShortEpochCallback(0.3, short_valid=False)); learn.recorder.values
learn.add_cb(CollectDataCallback()); learn.fit(2, cbs=ShortEpochCallback(0.3)); shown_twice(learn)
seen = FetchPredsCallback(); learn.fit(1, cbs=seen); seen.preds
seen = CollectDataCallback(); learn.fit(1, cbs=seen); len(seen.data), seen.data[0]
learn.fit(1, cbs=BnFreeze()); learn.freeze(); learn.fit(1, cbs=BnFreeze)
learn.fit(1, cbs=SkipToEpoch(1)); len(learn.recorder.losses)
learn.fit(2, cbs=TensorBoardCallback(log_preds=False)); sorted(Writer.said)
learn.fit(1, cbs=TensorBoardCallback(log_preds=True, trace_model=False)); sorted(Writer.said)
seen = Steps(); learn.fit(1, cbs=seen); seen.n
learn.fit(1, cbs=before_batch_cb(lambda self, xb, yb: (xb, yb)))
with Hooks(flatten_model(learn.model), lambda m, i, o: o.shape) as hooks: learn.get_preds()
with hook_output(learn.model, grad=True): learn.model(dls.one_batch()[0]).sum().backward()
# Metrics, losses, optimisers
learn.recorder.train_metrics = True; learn.fit(1); learn.recorder.metric_names
learn.metrics = [accuracy, error_rate]; learn.fit(1); learn.recorder.metric_names
learn.metrics = [Precision(average="macro"), CohenKappa()]; learn.fit(1); learn.recorder.values
learn.loss_func = LabelSmoothingCrossEntropy(); learn.fit(1); learn.get_preds()
learn.loss_func = FocalLossFlat(); learn.fit(1); learn.get_preds()
learn.loss_func = F.cross_entropy; learn.fit(1); learn.get_preds()
learn.loss_func = CrossEntropyLossFlat(weight=torch.ones(10)); learn.fit(1); learn.validate()
learn.opt_func = Adam; learn.fit_one_cycle(1, 1e-3); learn.opt.hypers
learn.opt_func = ranger; learn.fit_flat_cos(1, 1e-3)
learn.opt_func = partial(Adam, mom=0.8, wd=0.1); learn.fit(1)
learn.opt_func = partial(OptimWrapper, opt=torch.optim.AdamW); learn.fit_one_cycle(1, 1e-3)
learn.opt_func = partial(OptimWrapper, opt=torch.optim.RMSprop); learn.fit(1, 1e-3)
made(loss_func=FocalLossFlat(), metrics=[accuracy, error_rate], opt_func=ranger).fit(1)
made(wd=0.1, lr=1e-2, moms=(0.9, 0.8, 0.9), wd_bn_bias=False, train_bn=False).fit_one_cycle(1)
made(cbs=[MixUp(), GradientClip()], path=learn.path, model_dir="m").fit(1)
# Networks
made(model=nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))).fit(1)
made(model=torchvision.models.resnet18(num_classes=10)).validate()
made(model=xresnet18(n_out=10)).validate()
made(model=small(), splitter=halves).fine_tune(1)
vision_learner(dls, squeezenet1_1, pretrained=False, metrics=accuracy).fine_tune(1)
vision_learner(dls, resnet18, pretrained=False).get_preds()
Learner(dls, small(), metrics=accuracy, loss_func=F.cross_entropy).fit_one_cycle(1)
"""

# It works, but gives something else.
BYTES = "a pixel is decoded to a byte, rounded; fastai's is an int64 that is cut, often one less"
OTHER = {
    "dls.valid.decode(dls.valid.one_batch())": BYTES,
    "dls.decode_batch(dls.valid.one_batch(), max_n=3)": BYTES,
    "dls.train.show_batch(show=False, unique=True)": BYTES,
    "learn.predict(files[0], with_input=True)": BYTES,
    'dls.add_tfms([IntToFloatTensor()], "after_batch"); dls.valid.one_batch()': "once, not twice",
    "learn.fit_one_cycle(1, 1e-2); learn.recorder.lrs": "the lines of the cycle are straight",
    "learn.fit_one_cycle(1); sorted(learn.recorder.hps)": "momentum stays the optimiser's",
    "defaults_of(learn.fit_one_cycle)": "the peak is after 5/24, and the end is the start",
    "learn.cbs.attrgot('name')": "memory in channels-last order, losses that stay on the device",
}

# Where low precision could be in the way.
IN_BFLOAT16 = (
    "learn.fit(1, cbs=TensorBoardCallback())",
    "learn.fit(1, cbs=[MixUp(), GradientClip()]); learn.show_results()",
    "learn.fit(1, cbs=[CutMix(), GradientAccumulation(32)]); learn.get_preds()[0]",
    "seen = ActivationStats(with_hist=True); learn.fit(1, cbs=seen); seen.plot_layer_stats(0)",
    "learn.fine_tune(1); learn.validate()",
    "learn.lr_find(num_it=22)",
    "learn.fit(1); learn.tta()[0]",
    "learn.summary()",
    "learn.save('b', with_opt=True); learn.load('b', with_opt=True); learn.fit(1)",
    "learn.export(); load_learner(learn.path / 'export.pkl').get_preds(dl=dls.valid)[0]",
    "learn.to_fp32().fit(1); learn.to_fp16().to_bf16().fit(1); learn.get_preds()[0]",
    "learn.to_contiguous().fit(1); learn.to_channelslast().fit(1); learn.precision",
    "copy.deepcopy(learn).fit(1)",
    "learn.freeze(); learn.fit(1); learn.unfreeze(); learn.fit(1)",
    "interpreted().plot_top_losses(4)",
)
