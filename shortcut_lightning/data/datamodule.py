"""The data of a personalisation run, top to bottom: load, perturb, purify, detect, serve.

Every stage runs once, in `setup`, before a checkpoint is restored: `fit`, a resumed `fit` and
`test` see the same pretrained model and therefore make, or find in the cache, the same images.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor

from shortcut_lightning import draws
from shortcut_lightning.attacks.base import Attack, NoAttack
from shortcut_lightning.attacks.soundness import soundness
from shortcut_lightning.backbones.base import Backbone
from shortcut_lightning.batch import Example, PromptBatch, TrainBatch
from shortcut_lightning.captions import Captions
from shortcut_lightning.concepts.base import Detector, NoDetector
from shortcut_lightning.concepts.erasing import Erasing
from shortcut_lightning.concepts.generators import ConceptGenerator
from shortcut_lightning.data import loading, shares, stages, training
from shortcut_lightning.data.agreement import agreement_weights
from shortcut_lightning.data.buckets import Bucket, buckets, preparation
from shortcut_lightning.data.checks import (
    check_learnt_words,
    check_model,
    check_settings,
    check_subject,
)
from shortcut_lightning.data.class_images import class_examples, made_class_images
from shortcut_lightning.data.contamination import contaminate
from shortcut_lightning.data.erasing import in_vain, settled
from shortcut_lightning.data.evaluation import Batches, prompt_batches, split
from shortcut_lightning.data.lengths import Room
from shortcut_lightning.data.noisy_copies import noisy_copies
from shortcut_lightning.data.prepared import Prepared
from shortcut_lightning.data.settings import NoisyClassImages, Passes, Sampled
from shortcut_lightning.data.stream import StreamLoader, stream_loader
from shortcut_lightning.data.wording import Wording
from shortcut_lightning.files.cache import Cache, cache_folder
from shortcut_lightning.photographs import by_shape
from shortcut_lightning.prompts import Decoupling, Prompts
from shortcut_lightning.purifiers.base import Purifier
from shortcut_lightning.ranges import Between, Count, Ranged, Share

log = logging.getLogger(__name__)


class PersonalizationDataModule(Ranged, Prepared, LightningDataModule):
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
        noisy_class_images: Perturbed copies of them, for decoupling.
        sample_batch_size: Images generated, encoded, perturbed or purified at a time. Attacks that
            train a surrogate on all images take all of them.
        reference_data_dir: Held-out images of the subject, for validation loss and metrics; empty
            for the given ones, or for a generated subject its own.
        resolution: Side of training images in pixels; 0 for the model's own.
        train_batch_size: Instance images in a batch of one process; as many class images join them.
        training: How training goes through the images: repeats, crops, flips.
        bucketing: Learn photographs in their own shapes instead: each is resized to the nearest of
            a row of sizes of about the area of `resolution` squared (`data/buckets.py`).
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
        evaluation: What is sampled afterwards: prompts, counts, seeds.

    What became of the images is in the attributes of `Prepared`.
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
        noisy_class_images: NoisyClassImages = NoisyClassImages(),  # noqa: B008
        sample_batch_size: Count = 4,
        reference_data_dir: str = "",
        resolution: Annotated[int, Between(0, 32768, note="pixels; 0 for the model's own")] = 0,
        train_batch_size: Annotated[int, Between(1, 65536)] = 4,
        training: Passes = Passes(),  # noqa: B008
        cache_latents: bool = False,
        cache_dir: str = "",
        attack: Attack = NoAttack(),  # noqa: B008
        contamination: ConceptGenerator | None = None,
        purifiers: Sequence[Purifier] = (),
        detector: Detector = NoDetector(),  # noqa: B008
        detection_side: Count = stages.LOOKED_AT,
        erasing: Erasing = Erasing(),  # noqa: B008
        decoupling: Decoupling = Decoupling(),  # noqa: B008
        evaluation: Sampled = Sampled(),  # noqa: B008
        recursive: bool = False,
        captions: Captions = Captions(),  # noqa: B008
        attack_share: Share = 1.0,
        bucketing: bool = False,
    ) -> None:
        super().__init__()
        self.prompts = Prompts(
            instance_prompt, class_prompt, evaluation.negative_prompt, decoupling
        )
        self.instance_data_dir = instance_data_dir
        self.use_captions = use_captions
        self.class_data_dir = class_data_dir
        self.with_prior_preservation = with_prior_preservation
        self.num_class_images = num_class_images
        self.noisy_class_images = noisy_class_images
        self.sample_batch_size = sample_batch_size
        self.reference_data_dir = reference_data_dir
        self.resolution = resolution
        self.train_batch_size = train_batch_size
        self.training = training
        self.cache_latents = cache_latents
        self.cache_dir = cache_folder(cache_dir)
        self.named = ""  # where it is one of several subjects
        self.attack = attack
        self.contamination = contamination
        self.purifiers = purifiers
        self.detector = detector
        self.detection_side = detection_side
        self.erasing = erasing
        self.decoupling = decoupling
        self.evaluation = evaluation
        self.eval_prompts = [
            self.prompts.evaluated(text) for text in evaluation.prompts or [instance_prompt]
        ]
        self.recursive = recursive
        self.captions = captions
        self.attack_share = attack_share
        self.bucketing = bucketing
        check_settings(self)
        self._moments: list[Tensor] = []
        self._negatives: dict[str, str] = {}  # of an arm, where it is not the usual one

    def setup(self, stage: str) -> None:
        """Runs the stages, once per run; `predict` needs them only to know what to avoid, or which
        photographs are left, and without them the photographs for the size of their bucket."""
        model = self._trainer.lightning_module
        check_model(self, model.hparams, self.backbone.steerable)
        if stage == "fit":
            check_learnt_words(self, model.hparams)
        strategy = self._trainer.strategy
        device, cache = strategy.root_device, Cache(self.cache_dir, strategy)
        if stage == "predict" and not self._predicts_by_stages:
            if self.bucketing and self.instance_data_dir and not self.given:
                self._load(cache, training=False)
            return
        pace = self.sample_batch_size
        steps = stages.Steps(self.backbone, cache, device, pace, self._warn, self.named)
        if not self.trained_on:
            self._load(cache, training=stage == "fit")
            self._prepare(steps)
        if stage == "fit" and self.with_prior_preservation and not self.class_images:
            self._make_class_images(steps)
        if stage == "fit" and self.cache_latents and not self._moments:
            with self._timed("cache latents"):
                self._moments = training.latent_moments(
                    [each.image for each in self._instances() + self._priors()],
                    self.backbone,
                    cache,
                    device,
                    self.sample_batch_size,
                )

    def train_dataloader(self) -> StreamLoader:
        """`TrainBatch`es of the stream, from where training stands."""
        wording, passes, concepts = self._wording, self.training, None
        if self.captioner is not None:
            concepts = training.Concepts(self.boxes, self.captioner, self.backbone.downsampling)
        instances = self._instances()
        dataset = training.TrainSet(
            [
                each if self.captioner or self.captions.random else wording.worded(each)
                for each in instances
            ],
            self._priors(),
            side=self._square,
            random_flip=passes.random_flip,
            seed=draws.run_seed(),
            moments=self._moments,
            weights=self._weights(),
            concepts=concepts,
            words=training.Words(self.captions, wording.worded) if self.captions.random else None,
            rows=shares.rows([each.name for each in instances], passes.picture_repeats),
            batch=self.train_batch_size * self._trainer.world_size,
        )
        return stream_loader(
            dataset,
            self._trainer,
            partial(training.collate, prompts=self.prompts),
            batch_size=self.train_batch_size,
            repeats=passes.repeats,
            num_workers=passes.num_workers,
        )

    def val_dataloader(self) -> Batches[TrainBatch]:
        """The references as `TrainBatch`es with fixed draws."""
        examples = [
            example._replace(prompt=self.prompts.held_out(example.prompt))
            for example in self.validated
        ]
        return Batches(
            [
                training.validation_batch(examples, [group[i] for i in ids])
                for group in by_shape([example.image for example in examples])
                for ids in split(len(group), self.evaluation.batch_size, *self._ranks)
            ]
        )

    def test_dataloader(self) -> Batches[PromptBatch]:
        """The evaluation's `PromptBatch`es: the tuned arm, then the base arm."""
        return self._prompt_batches(self.eval_prompts, self.evaluation.arms)

    def predict_dataloader(self) -> Batches[PromptBatch]:
        """`PromptBatch`es of the prompts to predict."""
        texts = self.evaluation.predicted(self.prompts)
        self._wording.name_cut("data.evaluation.predict_prompts", texts)
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

    def sizes(self, model: Backbone) -> list[Bucket]:
        """The buckets that there are for this model; empty without `bucketing`."""
        if not self.bucketing:
            return []
        side = self.resolution or model.resolution
        return buckets(side, model.step, self.training.bucket_ratio, model.longest)

    @property
    def buckets(self) -> dict[Bucket, int]:
        """Sizes of what is trained on, with the number of photographs, the most frequent first;
        empty without `bucketing`."""
        return dict(Counter(self.shapes).most_common()) if self.bucketing else {}

    @property
    def _predicts_by_stages(self) -> bool:
        """Whether what `predict` samples depends on what the stages find."""
        drops = self.bucketing and self.erasing.contaminated == "drop"
        return self.erasing.negative != "none" or drops

    @property
    def _changed(self) -> bool:
        """Whether a model sees pictures whole, before examples are cropped out of them."""
        copies = any(each.purifiers for each in self.training.copies)
        attacked = not isinstance(self.attack, NoAttack) or self.noisy_class_images.wanted
        return bool(self.purifiers or copies or attacked)

    @property
    def _multiple(self) -> int:
        """Of the longer side of a picture that is not cropped."""
        return self.backbone.multiple if self._changed else 1

    @property
    def _square(self) -> int:
        """Side of a training image, 0 where each has its own shape."""
        return 0 if self.bucketing else self.side

    @property
    def _ranks(self) -> tuple[int, int]:
        return self._trainer.global_rank, self._trainer.world_size

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None
        return self.trainer

    def _load(self, cache: Cache, training: bool) -> None:
        check_subject(self, self.side, self.backbone.multiple)
        with self._timed("load"):
            self.given, self.references, self.validated, self.held_out = loading.load_subject(
                self.instance_data_dir,
                self.reference_data_dir,
                self.prompts,
                cache,
                captions=self.use_captions,
                side=self.side,
                crop=self.training.center_crop,
                recursive=self.recursive,
                sizes=self.sizes(self.backbone),
                multiple=self._multiple,
            )
        shares.check_repeats([each.name for each in self.given], self.training.picture_repeats)
        if training:
            self._wording.check_training(
                self.given, self.use_captions, self.with_prior_preservation
            )
        self._wording.check_evaluation(self.eval_prompts)

    def _prepare(self, steps: stages.Steps) -> None:
        """Perturb, contaminate, purify, detect."""
        seed, wording = draws.run_seed(), self._wording
        with self._timed("perturb"):
            self.protected = shares.chosen(len(self.given), self.attack_share, seed)
            self.perturbed = shares.changed(
                self.given, self.protected, lambda some: steps.perturb(some, self.attack)
            )
        self.published, self.pasted = contaminate(self.perturbed, self.contamination, seed)
        unperturbed, _ = contaminate(self.given, self.contamination, seed)
        with self._timed("purify"):
            self.trained_on = steps.purify(self.published, self.purifiers, unperturbed)
            for number, copy in enumerate(self.training.copies):
                self.copies += steps.purify(
                    self.published, copy.purifiers, unperturbed, whose=f"copy-{number}"
                )
        self.trained_on, self.copies, self.references, self.validated = map(
            wording.said, (self.trained_on, self.copies, self.references, self.validated)
        )
        wording.check_subject(self.eval_prompts)
        for reason in soundness(self.attack, self.purifiers, self.decoupling):
            self._warn(f"This will not show what the defence is worth: {reason}")
        with self._timed("detect"):
            self.boxes = self.found = stages.detect(
                self.trained_on, self.detector, steps.cache, steps.device, self.detection_side
            )
        if self.erasing != Erasing():
            self.captioner, negative, self.trained_on, self.boxes = settled(
                self.erasing,
                wording,
                self.trained_on,
                self.boxes,
                side=self._square,
                flips=self.training.random_flip,
            )
            self._negatives = {"tuned": negative}
            sentence = in_vain(self.erasing, self.detector, len(self.found), negative)
            if sentence and not any(self.found):
                self._warn(sentence)

    def _make_class_images(self, steps: stages.Steps) -> None:
        with self._timed("class images"):
            paths = made_class_images(
                self.class_data_dir,
                self.cache_dir,
                self.prompts.class_image(),
                self.num_class_images,
                self.backbone,
                self._trainer,
                self.sample_batch_size,
                self.shapes if self.bucketing else (),
            )
            crop = self.training.center_crop
            prepared = loading.preparation(self.side, crop, multiple=self._multiple)
            if self.bucketing:
                # In the order in which they were counted: a picture may be as near to two.
                prepared = preparation(list(dict.fromkeys(self.shapes)))
            self.class_images = class_examples(paths, self.prompts.class_prompt, prepared)
        if self.noisy_class_images.wanted:
            with self._timed("noisy class images"):
                self.noisy_copies = noisy_copies(
                    self.noisy_class_images,
                    self.class_images,
                    self.given,
                    self.published,
                    self.purifiers,
                    steps,
                )

    def _instances(self) -> list[Example]:
        return self.trained_on + self.copies

    def _weights(self) -> list[Tensor]:
        if not self.training.agreement:
            return []
        count, factor = len(self.trained_on), self.backbone.downsampling
        images = [each.image for each in self._instances()]
        own = [
            agreement_weights(images[place::count], self.training.agreement, factor)
            for place in range(count)
        ]
        alike = [
            torch.ones(1, *(side // factor for side in each.image.shape[-2:]))
            for each in self._priors()
        ]
        return own * (len(images) // count) + alike

    def _priors(self) -> list[Example]:
        return self._wording.priors(self.class_images, self.noisy_copies)

    @property
    def _wording(self) -> Wording:
        room = Room(self.backbone.count_tokens, self.backbone.prompt_length)
        return Wording(self.prompts, self.captions, room, self._warn)

    def _prompt_batches(self, texts: Sequence[str], arms: Sequence[str]) -> Batches[PromptBatch]:
        self._wording.check_suffix(texts)
        return Batches(
            prompt_batches(
                texts,
                self.evaluation.images_per_prompt,
                self.prompts,
                negatives=self._negatives,
                safety=self.erasing.safety,
                size=next(iter(self.buckets), None),
                first_seed=self.evaluation.seed,
                batch_size=self.evaluation.batch_size,
                arms=arms,
                rank=self._ranks[0],
                world_size=self._ranks[1],
            )
        )
