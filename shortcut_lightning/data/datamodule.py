"""The data of a personalisation run, top to bottom: load, perturb, purify, detect, serve.

Every stage runs once, in `setup`, before a checkpoint is restored: `fit`, a resumed `fit` and
`test` see the same pretrained model and therefore make, or find in the cache, the same images.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import Annotated

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.soundness import soundness
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import ConceptBox, Example, PromptBatch, TrainBatch
from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.concepts.erasing import Captioner, Erasing
from shortcut_lightning.concepts.generators import ConceptGenerator
from shortcut_lightning.data import evaluation, loading, shares, stages, training
from shortcut_lightning.data.buckets import Bucket, buckets, preparation, size_of
from shortcut_lightning.data.checks import check_model, check_settings
from shortcut_lightning.data.class_images import (
    check_made_before,
    class_image_folder,
    class_image_paths,
    make_class_images,
)
from shortcut_lightning.data.contamination import contaminate
from shortcut_lightning.data.lengths import Room, Worded, refuse_lost_subject, too_long
from shortcut_lightning.data.stream import StreamLoader, StreamSampler
from shortcut_lightning.data.transplant import transplant
from shortcut_lightning.files.cache import Cache, cache_folder, everywhere, together
from shortcut_lightning.files.images import center_crop, load_images
from shortcut_lightning.files.names import shown
from shortcut_lightning.photographs import by_shape
from shortcut_lightning.prompts import Decoupling, Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Between, Count, Levels, Ranged, Seed, Share

log = logging.getLogger(__name__)


class PersonalizationDataModule(Ranged, LightningDataModule):
    """A handful of images of one subject, what is done to them, and what is sampled afterwards.

    Args:
        instance_data_dir: Folder of images of the subject, or `pocket:<seed>` for a generated one.
        recursive: Take pictures of its subfolders, and of those of `reference_data_dir`, too.
        instance_prompt: What is said about each of them, for example "a photo of sks dog".
        use_captions: Use the images' own captions (`metadata.jsonl` or `.txt` files) instead.
        captions: What is done with them in training: a template, shuffling, dropout.
        class_prompt: What is said about class images, for example "a photo of a dog".
        class_data_dir: Where class images are and new ones are put; empty for the cache.
        with_prior_preservation: Train on class images too, so that the class is not forgotten.
        num_class_images: How many; missing ones are generated.
        class_attacks: What may have been done to the instance images, done to copies of class
            images, by turns. For decoupling: the copies go through `purifiers` as well and are
            called noisy, so that the noise words are said about others than the subject too and
            cannot become its name. Not in arXiv 2406.18944.
        class_transplant: The same where the attack is not known: what these purifiers take off the
            published photographs is put on the copies (`data/transplant.py`).
        class_transplant_limit: At most so much of it in a pixel, in /255.
        num_noisy_class_images: How many class images have such a copy; 0 for all.
        sample_batch_size: Images generated, encoded, perturbed or purified at a time. Attacks that
            train a surrogate on all images take all of them.
        reference_data_dir: Held-out images of the subject, for validation loss and metrics; empty
            for the given ones, or for a generated subject its own.
        resolution: Side of training images in pixels; 0 for the model's own.
        center_crop: Crop the middle (on here, off in diffusers, so that stages, caches and metrics
            all see what is trained on); off draws the crop anew each time.
        bucketing: Learn photographs in their own shapes instead: each is resized to the nearest of
            a row of sizes of about the area of `resolution` squared (`data/buckets.py`).
        bucket_ratio: Longer side over shorter side of a bucket, at most.
        random_flip: Mirror half of the examples; wrong for faces and text.
        repeats: Passes over the instance images in an epoch. Training is best measured in steps
            (trainer.max_steps); an epoch of one pass over five images would be too short.
        picture_repeats: How often a picture is seen in a pass, by its file name or a pattern of it
            (`{close-up-*.jpg: 3}`); once where nothing is said.
        train_batch_size: Instance images in a batch of one process; as many class images join them.
        dataloader_num_workers: Processes that prepare batches; 0 is best unless images are large.
        cache_latents: Encode all images once; not together with a random crop or flip.
        cache_dir: Where perturbed images, class images and latents are kept; see `files/cache.py`.
        attack: Perturbs the instance images, as their owner would before publishing them.
        attack_share: Share of them that it perturbs, chosen by the seed; the others are published
            as they are (the uncontrolled setting of Anti-DreamBooth, arXiv 2303.15433).
        contamination: Pastes a concept into a share of the perturbed images, as whoever publishes
            them would: `concepts.generators`, for experiments.
        purifiers: Clean the published images, one after the other.
        detector: Looks for concepts in what is trained on.
        detection_side: Photographs that no stage has changed are looked at in their own size, with
            at most so many pixels of their longer side; others as they are learned.
        erasing: What captions, loss weights and the negative prompt do about them.
        decoupling: Words in training and sampling prompts that take the blame for noise.
        eval_prompts: Sampled in `test`; empty for the instance prompt. `{instance}` and `{class}`
            stand for the instance and the class prompt: "{instance} on the beach".
        images_per_prompt: Images of each prompt in `test` and `predict`.
        eval_batch_size: Images sampled at a time, in validation, `test` and `predict`.
        negative_prompt: What sampled images should not show.
        eval_seed: Seed of the first sampled image; image i has this plus i.
        eval_base: Sample the untouched model too, for comparison.
        predict_prompts: Sampled in `predict`.
        predict_prompts_file: A text file of more of them, one a line.

    Attributes:
        given: Instance images as loaded, resized and (with `center_crop`) cropped.
        perturbed: The same as the attack leaves them.
        protected: Which of them it was given.
        published: The same with what `contamination` pasted.
        pasted: Where it was pasted in each.
        trained_on: The same after the stages.
        references: Held-out images of the subject, or the given ones; always square.
        validated: The same as the validation loss sees them: in buckets, where there are any.
        held_out: Whether the references are held-out images.
        class_images: Class images; empty without prior preservation.
        noisy_class_images: Their perturbed copies; empty without `class_attacks` and
            `class_transplant`.
        boxes: What the detector found in each image of `trained_on`.
        captioner: Writes the prompts of images with concepts; None while `erasing` does nothing.
        warnings: Why results of this attack and these purifiers would mislead.
        seconds: Seconds each stage took, by its name.
    """

    def __init__(
        self,
        instance_data_dir: str = "",
        instance_prompt: str = "",
        use_captions: bool = False,
        class_prompt: str = "",
        class_data_dir: str = "",
        with_prior_preservation: bool = False,
        num_class_images: Count = 100,
        class_attacks: Sequence[Attack] = (),
        class_transplant: Sequence[Purifier] = (),
        class_transplant_limit: Annotated[float, Levels(0, 255, open="least")] = 16.0,
        num_noisy_class_images: Annotated[int, Between(0, note="0 for all")] = 0,
        sample_batch_size: Count = 4,
        reference_data_dir: str = "",
        resolution: Annotated[int, Between(0, 32768, note="pixels; 0 for the model's own")] = 0,
        center_crop: bool = True,
        random_flip: bool = False,
        repeats: Count = 100,
        train_batch_size: Annotated[int, Between(1, 65536)] = 4,
        dataloader_num_workers: Annotated[int, Between(0, 1024)] = 0,
        cache_latents: bool = False,
        cache_dir: str = "",
        attack: Attack = NoAttack(),  # noqa: B008
        contamination: ConceptGenerator | None = None,
        purifiers: Sequence[Purifier] = (),
        detector: Detector = NoDetector(),  # noqa: B008
        detection_side: Count = stages.LOOKED_AT,
        erasing: Erasing = Erasing(),  # noqa: B008
        decoupling: Decoupling = Decoupling(),  # noqa: B008
        eval_prompts: Sequence[str] = (),
        images_per_prompt: Count = 8,
        eval_batch_size: Count = 8,
        negative_prompt: str = "",
        eval_seed: Seed = 0,
        eval_base: bool = True,
        predict_prompts: Sequence[str] = (),
        predict_prompts_file: str = "",
        recursive: bool = False,
        captions: Captions = Captions(),  # noqa: B008
        picture_repeats: dict[str, Count] = {},  # noqa: B006
        attack_share: Share = 1.0,
        bucketing: bool = False,
        bucket_ratio: Annotated[float, Between(1, 4, note="longer over shorter side")] = 2.0,
    ) -> None:
        super().__init__()
        self.prompts = Prompts(instance_prompt, class_prompt, negative_prompt, decoupling)
        self.instance_data_dir = instance_data_dir
        self.use_captions = use_captions
        self.class_data_dir = class_data_dir
        self.with_prior_preservation = with_prior_preservation
        self.num_class_images = num_class_images
        self.class_attacks = class_attacks
        self.class_transplant = class_transplant
        self.class_transplant_limit = class_transplant_limit
        self.num_noisy_class_images = num_noisy_class_images
        self.sample_batch_size = sample_batch_size
        self.reference_data_dir = reference_data_dir
        self.resolution = resolution
        self.center_crop = center_crop
        self.random_flip = random_flip
        self.repeats = repeats
        self.train_batch_size = train_batch_size
        self.dataloader_num_workers = dataloader_num_workers
        self.cache_latents = cache_latents
        self.cache_dir = cache_folder(cache_dir)
        self.attack = attack
        self.contamination = contamination
        self.purifiers = purifiers
        self.detector = detector
        self.detection_side = detection_side
        self.erasing = erasing
        self.decoupling = decoupling
        self.eval_prompts = [
            self.prompts.evaluated(text) for text in eval_prompts or [instance_prompt]
        ]
        self.images_per_prompt = images_per_prompt
        self.eval_batch_size = eval_batch_size
        self.eval_seed = eval_seed
        self.eval_base = eval_base
        self.predict_prompts = [self.prompts.evaluated(text) for text in predict_prompts]
        self.predict_prompts_file = predict_prompts_file
        self.recursive = recursive
        self.captions = captions
        self.picture_repeats = picture_repeats
        self.attack_share = attack_share
        self.bucketing = bucketing
        self.bucket_ratio = bucket_ratio
        check_settings(self)
        self.given: list[Example] = []
        self.perturbed: list[Example] = []
        self.protected: list[int] = []
        self.published: list[Example] = []
        self.pasted: list[list[ConceptBox]] = []
        self.trained_on: list[Example] = []
        self.references: list[Example] = []
        self.validated: list[Example] = []
        self.held_out = False
        self.class_images: list[Example] = []
        self.noisy_class_images: list[Example] = []
        self.boxes: list[list[ConceptBox]] = []
        self.captioner: Captioner | None = None
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self._moments: list[Tensor] = []
        self._negatives: dict[str, str] = {}  # of an arm, where it is not the usual one

    def setup(self, stage: str) -> None:
        """Runs the stages, once per run; `predict` needs them only to know what to avoid."""
        model = self._trainer.lightning_module
        check_model(self, model.hparams, self.backbone.steerable)
        if stage == "predict" and self.erasing.negative == "none":
            return
        strategy = self._trainer.strategy
        device, cache = strategy.root_device, Cache(self.cache_dir, strategy)
        if not self.trained_on:
            with self._timed("load"):
                self._load(cache)
            shares.check_repeats([each.name for each in self.given], self.picture_repeats)
            self._check_lengths(training=stage == "fit")
            seed = draws.run_seed()
            with self._timed("perturb"):
                self.protected = shares.chosen(len(self.given), self.attack_share, seed)
                self.perturbed = shares.changed(
                    self.given, self.protected, lambda some: self._perturb(some, self.attack, cache)
                )
            self.published, self.pasted = contaminate(self.perturbed, self.contamination, seed)
            unperturbed, _ = contaminate(self.given, self.contamination, seed)
            with self._timed("purify"):
                self.trained_on = self._purify(self.published, self.purifiers, cache, unperturbed)
            self.trained_on, self.references, self.validated = map(
                self._said, (self.trained_on, self.references, self.validated)
            )
            for prompt in self.prompts.strangers(self.eval_prompts):
                self._warn(
                    f"The evaluation asks for '{prompt}', which does not name the subject of "
                    f"'{self.prompts.instance_prompt}': its numbers are about somebody else "
                    "(data.eval_prompts; '{instance}' in one stands for the instance prompt)."
                )
            for reason in soundness(self.attack, self.purifiers, self.decoupling):
                self._warn(f"This will not show what the defence is worth: {reason}")
            with self._timed("detect"):
                self.boxes = stages.detect(
                    self.trained_on, self.detector, cache, device, self.detection_side
                )
            if self.erasing != Erasing():
                self._prepare_erasing()
        if stage == "fit" and self.with_prior_preservation and not self.class_images:
            with self._timed("class images"):
                self._make_class_images(device)
            if self.class_attacks or self.class_transplant:
                with self._timed("noisy class images"):
                    self._make_noisy_class_images(cache)
        if stage == "fit" and self.cache_latents and not self._moments:
            with self._timed("cache latents"):
                self._moments = training.latent_moments(
                    [each.image for each in self.trained_on + self._priors()],
                    self.backbone,
                    cache,
                    device,
                    self.sample_batch_size,
                )

    def train_dataloader(self) -> StreamLoader:
        """`TrainBatch`es of the stream, from where training stands."""
        trainer = self._trainer
        world_size, rank = trainer.world_size, trainer.global_rank
        dataset = training.TrainSet(
            [
                each if self.captioner or self.captions.random else self._worded(each)
                for each in self.trained_on
            ],
            self._priors(),
            side=0 if self.bucketing else self.side,
            random_flip=self.random_flip,
            seed=draws.run_seed(),
            moments=self._moments,
            concepts=self._concepts(),
            words=training.Words(self.captions, self._worded) if self.captions.random else None,
            rows=shares.rows([each.name for each in self.trained_on], self.picture_repeats),
            batch=self.train_batch_size * world_size,
        )
        progress = trainer.fit_loop.epoch_loop.batch_progress
        sampler = StreamSampler(
            dataset,
            batches=ceil(len(dataset) * self.repeats / (self.train_batch_size * world_size)),
            batch_size=self.train_batch_size,
            # Not `ready`: a checkpoint written while a batch is worked on counts it as ready.
            trained=lambda: progress.total.processed,  # type: ignore[attr-defined]
            rank=rank,
            world_size=world_size,
        )
        return StreamLoader(
            dataset,
            batch_size=self.train_batch_size,
            sampler=sampler,
            collate_fn=partial(training.collate, prompts=self.prompts),
            num_workers=self.dataloader_num_workers,
            persistent_workers=self.dataloader_num_workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> evaluation.Batches[TrainBatch]:
        """The references as `TrainBatch`es with fixed draws."""
        examples = [
            example._replace(prompt=self.prompts.held_out(example.prompt))
            for example in self.validated
        ]
        return evaluation.Batches(
            [
                training.validation_batch([examples[group[i]] for i in ids], group[ids[0]])
                for group in by_shape([example.image for example in examples])
                for ids in self._split(len(group))
            ]
        )

    def test_dataloader(self) -> evaluation.Batches[PromptBatch]:
        """The evaluation's `PromptBatch`es: the tuned arm, then the base arm."""
        return self._prompt_batches(
            self.eval_prompts, ("tuned", "base") if self.eval_base else ("tuned",)
        )

    def predict_dataloader(self) -> evaluation.Batches[PromptBatch]:
        """`PromptBatch`es of the prompts to predict."""
        texts = self.predict_prompts + evaluation.read_prompts(self.predict_prompts_file)
        if not texts:
            raise ValueError(
                "Nothing to sample: set data.predict_prompts to a list of prompts or "
                "data.predict_prompts_file to a text file with one prompt a line."
            )
        self._name_cut("data.predict_prompts", texts)
        return self._prompt_batches(texts, ("tuned",))

    def state_dict(self) -> dict[str, int]:
        """Examples in a batch of all processes together, for `load_state_dict` to compare."""
        return {"global_batch": self.train_batch_size * self._trainer.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Warns where the resumed run does not continue the row of examples where it stood."""
        now = self.state_dict()["global_batch"]
        if now != state["global_batch"]:
            log.warning(
                "The checkpoint trained on %d examples a step, this run on %d (processes times "
                "data.train_batch_size): it goes on, but with other examples than an unbroken run.",
                state["global_batch"],
                now,
            )

    @property
    def backbone(self) -> Backbone:
        """The model of the run."""
        backbone = self._trainer.lightning_module.backbone
        assert isinstance(backbone, Backbone)
        return backbone

    @property
    def side(self) -> int:
        """Side of a training image in pixels."""
        return self.resolution or self.backbone.resolution

    @property
    def buckets(self) -> dict[Bucket, int]:
        """Sizes of what is trained on, with the number of photographs, the most frequent first;
        empty without `bucketing`."""
        found = Counter(size_of(each.image) for each in self.trained_on if self.bucketing)
        return dict(found.most_common())

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None
        return self.trainer

    def _load(self, cache: Cache) -> None:
        if not self.prompts.instance_prompt:
            raise ValueError(
                "data.instance_prompt is not set; say what the images show with a rare word for "
                "the subject, such as 'a photo of sks dog'."
            )
        if self.side % self.backbone.downsampling:
            raise ValueError(
                f"data.resolution is {self.side}; this model needs a multiple of "
                f"{self.backbone.downsampling}."
            )
        sizes = self._sizes()
        instances, references = loading.subject_folders(
            self.instance_data_dir, self.reference_data_dir, cache.folder, cache.ranks
        )
        self.given = loading.load_examples(
            instances,
            "instance_data_dir",
            self.prompts,
            captions=self.use_captions,
            side=self.side,
            crop=self.center_crop,
            recursive=self.recursive,
            sizes=sizes,
        )
        self.held_out = references is not None

        def held_out(sizes: Sequence[Bucket] = ()) -> list[Example]:
            return loading.load_examples(
                references or instances,
                "reference_data_dir",
                self.prompts,
                captions=self.use_captions,
                side=self.side,
                crop=True,
                recursive=self.recursive,
                sizes=sizes,
            )

        if self.held_out or self.bucketing:
            self.references = held_out()
        else:
            self.references = [
                each._replace(image=center_crop(each.image, self.side)) for each in self.given
            ]
        self.validated = held_out(sizes) if self.bucketing else self.references

    def _sizes(self) -> list[Bucket]:
        """The buckets that there are for this model; empty without `bucketing`."""
        if not self.bucketing:
            return []
        backbone = self.backbone
        return buckets(self.side, backbone.step, self.bucket_ratio, backbone.longest)

    def _prepare_erasing(self) -> None:
        """Settles what is said about the concepts, then takes contaminated images away."""
        backbone = self.backbone
        self.captioner = Captioner(
            self.erasing, self.prompts, backbone.count_tokens, backbone.prompt_length
        )
        labels = {box.label for image in self.boxes for box in image}
        shown = [
            boxes
            for example, found in zip(self.trained_on, self.boxes, strict=True)
            for boxes in training.usual_boxes(
                found, example.image, 0 if self.bucketing else self.side, self.random_flip
            )
        ]
        self._negatives = {"tuned": self.captioner.negative(labels, shown)}
        self.trained_on, self.boxes = stages.settle_contaminated(
            self.trained_on, self.boxes, self.erasing.contaminated
        )
        worded = [
            Worded(example.name, example.prompt, self.captioner.instance(example.prompt, boxes))
            for example, boxes in zip(self.trained_on, self.boxes, strict=True)
        ]
        refuse_lost_subject(self.prompts.subject, worded, self._room)
        for what, count in sorted(self.captioner.usage.items()):
            if count:
                log.warning("Captions of %d images: %s %d times", len(self.boxes), what, count)

    def _concepts(self) -> training.Concepts | None:
        if self.captioner is None:
            return None
        return training.Concepts(self.boxes, self.captioner, self.backbone.downsampling)

    def _make_class_images(self, device: torch.device) -> None:
        trainer, prompt = self._trainer, self.prompts.class_image()
        folder = class_image_folder(
            self.class_data_dir, self.cache_dir, prompt, self.backbone, str(trainer.precision)
        )
        photographs = [size_of(each.image) for each in self.trained_on if self.bucketing]
        paths = class_image_paths(folder, self.num_class_images, photographs)
        if self.class_data_dir:
            together(lambda: check_made_before(paths, prompt, self.backbone), trainer.strategy)
        trainer.strategy.barrier("class images listed")

        def make() -> None:
            with trainer.precision_plugin.forward_context():
                make_class_images(
                    paths,
                    prompt,
                    self.backbone,
                    device,
                    batch_size=self.sample_batch_size,
                    rank=trainer.global_rank,
                    world_size=trainer.world_size,
                )

        everywhere(make, trainer.strategy, workers=trainer.world_size)
        prepared = loading.preparation(self.side, self.center_crop)
        if self.bucketing:
            prepared = preparation(list(self.buckets))
        self.class_images = [
            Example(image, self.prompts.class_prompt, shown(path.name))
            for image, path in zip(load_images(paths, prepared), paths, strict=True)
        ]

    def _make_noisy_class_images(self, cache: Cache) -> None:
        some = self.class_images[: self.num_noisy_class_images or None]
        noisy: list[Example] = []
        for number, attack in enumerate(self.class_attacks):
            noisy += self._perturb(some[number :: len(self.class_attacks)], attack, cache)
        if self.class_transplant:
            noisy += transplant(
                some,
                self.published,
                self._purify(self.published, self.class_transplant, cache, self.given),
                limit=self.class_transplant_limit,
                step=self.backbone.downsampling,
                seed=draws.run_seed(),
            )
        clean = {example.name: example for example in some}
        unperturbed = [clean[example.name] for example in noisy]
        self.noisy_class_images = self._purify(noisy, self.purifiers, cache, unperturbed)

    def _perturb(self, examples: list[Example], attack: Attack, cache: Cache) -> list[Example]:
        device, chunk = self._trainer.strategy.root_device, self.sample_batch_size
        return stages.perturb(examples, attack, self.backbone, cache, device, chunk, self._warn)

    def _purify(
        self,
        examples: list[Example],
        purifiers: Sequence[Purifier],
        cache: Cache,
        unperturbed: list[Example],
    ) -> list[Example]:
        device, chunk = self._trainer.strategy.root_device, self.sample_batch_size
        return stages.purify(examples, purifiers, self.backbone, cache, device, chunk, unperturbed)

    def _priors(self) -> list[Example]:
        """Class images and their noisy copies with the prompts of the prior loss."""
        return [
            example._replace(prompt=self.prompts.prior(noisy))
            for examples, noisy in ((self.class_images, False), (self.noisy_class_images, True))
            for example in examples
        ]

    def _said(self, examples: list[Example]) -> list[Example]:
        template = self.captions.template
        return [e._replace(prompt=self.prompts.said(template, e.prompt)) for e in examples]

    def _worded(self, example: Example) -> Example:
        if not self.decoupling.training:
            return example._replace(prompt=self.prompts.instance(example.prompt))
        # The text encoder would cut the noise words, which stand at the end.
        return example._replace(prompt=self.prompts.fitted(example.prompt, "", self._fits))

    @property
    def _room(self) -> Room:
        return Room(self.backbone.count_tokens, self.backbone.prompt_length)

    def _fits(self, prompt: str) -> bool:
        return self._room.fits(prompt)

    def _name_cut(self, what: str, texts: Iterable[str]) -> None:
        if sentence := too_long(what, dict.fromkeys(texts), self._room):
            self._warn(sentence)

    def _check_lengths(self, training: bool) -> None:
        """Names prompts that are cut off; refuses to train where the subject's name is."""
        if training:
            said = self._said(self.given)
            worded = [Worded(e.name, e.prompt, self._worded(e).prompt) for e in said]
            refuse_lost_subject(self.prompts.subject, worded, self._room)
            what = "captions (data.use_captions)" if self.use_captions else "data.instance_prompt"
            self._name_cut(what, [self.prompts.instance(each.caption) for each in worded])
            if self.with_prior_preservation:
                self._name_cut(
                    "data.class_prompt", [self.prompts.prior(noisy) for noisy in (False, True)]
                )
        self._name_cut("data.eval_prompts", self.eval_prompts)
        if negative := self.prompts.negative():
            self._name_cut("data.negative_prompt", [negative])

    def _split(self, count: int) -> list[list[int]]:
        trainer = self._trainer
        return evaluation.split(
            count, self.eval_batch_size, trainer.global_rank, trainer.world_size
        )

    def _prompt_batches(
        self, texts: Sequence[str], arms: Sequence[str]
    ) -> evaluation.Batches[PromptBatch]:
        if self.decoupling.sampling and not all(
            self._fits(self.prompts.sampling(t)) for t in texts
        ):
            self._warn(
                "Some prompts leave no room for data.decoupling.sampling_suffix: the text encoder "
                f"takes {self.backbone.prompt_length} words. Shorten them."
            )
        return evaluation.Batches(
            evaluation.prompt_batches(
                texts,
                self.images_per_prompt,
                self.prompts,
                negatives=self._negatives,
                safety=self.erasing.safety,
                size=next(iter(self.buckets), None),
                first_seed=self.eval_seed,
                batch_size=self.eval_batch_size,
                arms=arms,
                rank=self._trainer.global_rank,
                world_size=self._trainer.world_size,
            )
        )

    def _warn(self, sentence: str) -> None:
        log.warning(sentence)
        self.warnings.append(sentence)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
