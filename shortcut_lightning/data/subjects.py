"""Several subjects in one run, each with photographs, prompts, stages and evaluation of its own.

A subject is the data of a run of its own; here they take turns, as often as each has pictures times
repeats, in the order of `bucket_order.py`: the same row on any number of processes and after a
resume. Class images are learnt beside the subject whose they are.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import ceil, gcd
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import Dataset

from shortcut_lightning import draws
from shortcut_lightning.batch import Example, PromptBatch, TrainBatch
from shortcut_lightning.data.bucket_order import BucketOrder
from shortcut_lightning.data.buckets import Bucket
from shortcut_lightning.data.datamodule import PersonalizationDataModule
from shortcut_lightning.data.evaluation import Batches
from shortcut_lightning.data.settings import Sampled
from shortcut_lightning.data.stream import StreamLoader, StreamSampler
from shortcut_lightning.data.training import Row, TrainSet


def _contrasted(name: str) -> Callable[[PersonalizationDataModule], Any]:
    """A setting of decoupling where there is a contrast, for which one subject's serve a batch."""
    return lambda data: getattr(data.decoupling, name) if data.decoupling.contrast > 0 else None


# What the examples of one batch have in common, and the arms of the evaluation: key -> how a
# subject's data say it.
_COMMON: Mapping[str, Callable[[PersonalizationDataModule], Any]] = {
    "train_batch_size": lambda data: data.train_batch_size,
    "with_prior_preservation": lambda data: data.with_prior_preservation,
    "cache_latents": lambda data: data.cache_latents,
    "resolution": lambda data: data.resolution,
    "bucketing": lambda data: data.bucketing,
    "erasing.alpha": lambda data: data.erasing.alpha,
    "training.agreement": lambda data: data.training.agreement,
    "decoupling.contrast": lambda data: data.decoupling.contrast,
    "decoupling.contrast_margin": _contrasted("contrast_margin"),
    "decoupling.noise": _contrasted("noise"),
    "decoupling.instance_suffix": _contrasted("instance_suffix"),
    "decoupling.class_suffix": _contrasted("class_suffix"),
    "evaluation.images_per_prompt": lambda data: data.evaluation.images_per_prompt,
    "evaluation.base": lambda data: data.evaluation.base,
}


class SubjectSet(Dataset[list[Row]]):
    """Position of the stream -> the rows of one subject, each subject in a stream of its own.

    Args:
        sets: One for each subject.
        repeats: How often the pictures of each are seen in a pass over all.
        batch: Neighbouring positions that are of one subject.
        seed: Of the run.
    """

    def __init__(self, sets: list[TrainSet], repeats: list[int], batch: int, seed: int) -> None:
        counts = [len(each) * n for each, n in zip(sets, repeats, strict=True)]
        shared = gcd(*counts)
        turns = [number for number, n in enumerate(counts) for _ in range(n // shared)]
        self.sets, self.length = sets, sum(counts)
        self.order = BucketOrder(turns, batch, seed)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> list[Row]:
        subject, place = self.order(position)
        return self.sets[subject].at(place, position)


def _joined(attribute: str) -> Any:
    """The lists of all subjects, one behind the other; pictures as `<subject>/<name>`."""

    def rows(self: "SeveralSubjects") -> list[Any]:
        return [
            row._replace(name=f"{name}/{row.name}") if isinstance(row, Example) else row
            for name, data in self.subjects.items()
            for row in getattr(data, attribute)
        ]

    return property(rows)


class SeveralSubjects(LightningDataModule):
    """Learns several subjects in one run and evaluates each by itself: metrics are called
    `identity@<subject>`, photographs `<subject>/<file>`.

    Args:
        subjects: Name -> the data of one subject, with its folder, prompts, repeats, attack,
            purifiers and all else. What the examples of a batch have in common (size of a batch,
            resolution, prior preservation, cached latents) has to be the same in all, and which
            pictures are sampled of a prompt too (`images_per_prompt`, `base`). `predict` samples
            the prompts of the first.
    """

    given = _joined("given")
    perturbed = _joined("perturbed")
    published = _joined("published")
    pasted = _joined("pasted")
    trained_on = _joined("trained_on")
    copies = _joined("copies")
    references = _joined("references")
    validated = _joined("validated")
    class_images = _joined("class_images")
    noisy_copies = _joined("noisy_copies")
    found = _joined("found")
    boxes = _joined("boxes")
    warnings = _joined("warnings")
    eval_prompts = _joined("eval_prompts")

    def __init__(self, subjects: dict[str, PersonalizationDataModule]) -> None:
        super().__init__()
        if not subjects:
            raise ValueError(
                "data.subjects is empty; give each subject a name and its data, as in "
                "configs/several_subjects.yaml."
            )
        self.subjects = subjects
        for key, of in _COMMON.items():
            values = {name: of(data) for name, data in subjects.items()}
            first, *_ = values
            for name, value in values.items():
                if value != values[first]:
                    raise ValueError(
                        f"data.subjects: {key} is {values[first]!r} of {first} and {value!r} "
                        f"of {name}; a batch holds examples of all, so it must be the same."
                    )

    def setup(self, stage: str) -> None:
        """Runs each subject's stages."""
        for number, (name, data) in enumerate(self.subjects.items()):
            data.trainer = self.trainer
            # The first shares what it is given with a run of its own.
            data.named = name if number else ""
            data.setup(stage)

    def train_dataloader(self) -> StreamLoader:
        """`TrainBatch`es of the stream, from where training stands."""
        assert self.trainer is not None
        loaders = [data.train_dataloader() for data in self.subjects.values()]
        first, world_size = loaders[0], self.trainer.world_size
        assert first.batch_size is not None
        assert isinstance(first.sampler, StreamSampler)
        batch = first.batch_size * world_size
        dataset = SubjectSet(
            [loader.dataset for loader in loaders],  # type: ignore[misc]
            [data.training.repeats for data in self.subjects.values()],
            batch if self._first.bucketing else 1,
            draws.run_seed(),
        )
        sampler = StreamSampler(
            dataset,
            batches=ceil(len(dataset) / batch),
            batch_size=first.batch_size,
            trained=first.sampler.trained,
            rank=self.trainer.global_rank,
            world_size=world_size,
        )
        return StreamLoader(
            dataset,
            batch_size=first.batch_size,
            sampler=sampler,
            collate_fn=first.collate_fn,
            num_workers=first.num_workers,
            persistent_workers=first.num_workers > 0,
            pin_memory=first.pin_memory,
        )

    def val_dataloader(self) -> Batches[TrainBatch]:
        """The held-out pictures of each, one subject after the other."""
        parts = [data.val_dataloader() for data in self.subjects.values()]
        return Batches([batch for part in parts for batch in part])

    def test_dataloader(self) -> Batches[PromptBatch]:
        """The evaluation of each, one subject after the other, all at one size; ids count on."""
        size = next(iter(self.buckets), None)
        return Batches(
            [
                batch._replace(ids=batch.ids + self.sampled_ids[name].start, size=size)
                for name, data in self.subjects.items()
                for batch in data.test_dataloader()
            ]
        )

    def predict_dataloader(self) -> Batches[PromptBatch]:
        """What the first subject's data say."""
        return self._first.predict_dataloader()

    def state_dict(self) -> dict[str, int]:
        """See `PersonalizationDataModule`."""
        return self._first.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """See `PersonalizationDataModule`."""
        self._first.load_state_dict(state)

    @property
    def sampled_ids(self) -> dict[str, range]:
        """Which of the evaluation's images are of which subject."""
        found, start = {}, 0
        for name, data in self.subjects.items():
            count = len(data.eval_prompts) * data.evaluation.images_per_prompt
            found[name] = range(start, start + count)
            start = found[name].stop
        return found

    @property
    def evaluation(self) -> Sampled:
        """What is sampled; the number of images of a prompt is that of every subject."""
        return self._first.evaluation

    @property
    def held_out(self) -> bool:
        """Whether all references are held-out images."""
        return all(data.held_out for data in self.subjects.values())

    @property
    def instance_data_dir(self) -> str:
        """The first that is not a generated subject, for who judges whether the pictures are."""
        folders = [data.instance_data_dir for data in self.subjects.values()]
        return next((each for each in folders if not each.startswith("pocket:")), folders[0])

    @property
    def buckets(self) -> dict[Bucket, int]:
        """See `PersonalizationDataModule`."""
        found = Counter[Bucket]()
        for data in self.subjects.values():
            found.update(data.buckets)
        return dict(found.most_common())

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds each stage took, of all subjects together."""
        found: dict[str, float] = {}
        for data in self.subjects.values():
            found |= {stage: found.get(stage, 0.0) + s for stage, s in data.seconds.items()}
        return found

    @property
    def _first(self) -> PersonalizationDataModule:
        return next(iter(self.subjects.values()))
