"""The LightningCLI behind `main`: verbs, run folder, resuming, evaluation after `fit`."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from jsonargparse import set_parsing_settings
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf.errors import OmegaConfBaseException

from shortcut_lightning import stopping
from shortcut_lightning.callbacks.evaluation import Evaluation
from shortcut_lightning.callbacks.finite import StopAtNaN
from shortcut_lightning.callbacks.look import Look
from shortcut_lightning.callbacks.report import ReportWriter
from shortcut_lightning.callbacks.save_images import SaveImages
from shortcut_lightning.callbacks.step_bar import StepBar
from shortcut_lightning.callbacks.trainers import callbacks_of
from shortcut_lightning.cli.checkpoints import check_checkpoint
from shortcut_lightning.cli.class_index import class_index, concrete, import_named
from shortcut_lightning.cli.config_files import config_files
from shortcut_lightning.cli.errors import UserError, as_user_error, is_first_process, listed, notice
from shortcut_lightning.cli.explain import explain_interpolation
from shortcut_lightning.cli.keep_last import LAST, KeepLast, WholeFiles
from shortcut_lightning.cli.memory import told as memory_told
from shortcut_lightning.cli.nulls import refuse_nulls
from shortcut_lightning.cli.numbers import lend_ranges
from shortcut_lightning.cli.optimizers import add_optimizers, choose_optimizers, with_paths
from shortcut_lightning.cli.parser import ShortcutParser, class_switches
from shortcut_lightning.cli.quiet import quiet, quiet_wandb
from shortcut_lightning.cli.resume import ConfigWins, find_checkpoint
from shortcut_lightning.cli.run_folder import (
    SaveRunConfig,
    discard_if_empty,
    prepare_loggers,
)
from shortcut_lightning.cli.same_run import facts, refuse_other
from shortcut_lightning.cli.told import numbers, places
from shortcut_lightning.cli.verbs import PROGRAM
from shortcut_lightning.cluster.pool import EngineName, GpuShare, open_pool
from shortcut_lightning.cluster.sources import is_stream
from shortcut_lightning.ranges import Count, CountOrNone, Quality

if TYPE_CHECKING:
    from shortcut_lightning.data import PersonalizationDataModule

# Filled in by the program, or of no use on a command line.
_NOT_OPTIONS = {
    "self", "model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders",
    "verbose", "return_predictions",
}  # fmt: skip
# Lightning's other kinds cast what learns and the autoencoder too.
_PRECISIONS = {"32", "32-true", "bf16", "bf16-mixed", "16", "16-mixed"}


class ShortcutTrainer(Trainer):
    """Lightning's Trainer. A method here whose name is in `VERBS` is a verb."""

    def _run_stage(self) -> Any:
        # Lightning has just put its own handler of SIGTERM first, which talks to the other ranks
        # from wherever the program is, and ends a run with code 0.
        stopping.listen()
        return super()._run_stage()

    def protect(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        output: str,
        format: Literal["png", "jpeg"] = "png",
        quality: Quality = 95,
        metadata: Literal["strip", "keep"] = "strip",
        overwrite: bool = False,
        engine: EngineName = "local",
        workers: Count = 1,
        gpus_per_worker: GpuShare = 0.0,
        max_failures: CountOrNone = 100,
    ) -> None:
        """Writes protected copies of the photographs in `data.instance_data_dir`.

        Args:
            output: Folder for the copies; measured/ in it has a contact sheet and the numbers.
            format: `png` keeps every value; `jpeg` is what photographs are published as.
            quality: Of JPEG, 1 to 95.
            metadata: Whether camera, place and time are kept. Copies are in sRGB.
            overwrite: Allow names that exist in the output folder.
            engine: `local` is this process; `ray` has workers, here or on a cluster.
            workers: Of Ray.
            gpus_per_worker: Share of a GPU that each takes, such as 0.5; 0 works on the CPU.
            max_failures: Of shards, tables and patterns: so many pictures may be unreadable, or
                break what is done to them, before it stops; each is named and left out.
        """
        settings = (output, format, quality, metadata, overwrite)
        pool = engine, workers, gpus_per_worker, max_failures
        self._copy("protect", model, datamodule, settings, pool)

    def purify(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        output: str,
        format: Literal["png", "jpeg"] = "png",
        quality: Quality = 95,
        metadata: Literal["strip", "keep"] = "strip",
        overwrite: bool = False,
        engine: EngineName = "local",
        workers: Count = 1,
        gpus_per_worker: GpuShare = 0.0,
        max_failures: CountOrNone = 100,
    ) -> None:
        """Writes purified copies of the photographs in `data.instance_data_dir`.

        Args:
            output: Folder for the copies; measured/ in it has a contact sheet and the numbers.
            format: `png` keeps every value; `jpeg` is what photographs are published as.
            quality: Of JPEG, 1 to 95.
            metadata: Whether camera, place and time are kept. Copies are in sRGB.
            overwrite: Allow names that exist in the output folder.
            engine: `local` is this process; `ray` has workers, here or on a cluster.
            workers: Of Ray.
            gpus_per_worker: Share of a GPU that each takes, such as 0.5; 0 works on the CPU.
            max_failures: Of shards, tables and patterns: so many pictures may be unreadable, or
                break what is done to them, before it stops; each is named and left out.
        """
        settings = (output, format, quality, metadata, overwrite)
        pool = engine, workers, gpus_per_worker, max_failures
        self._copy("purify", model, datamodule, settings, pool)

    def detect(
        self,
        model: LightningModule,
        datamodule: LightningDataModule,
        output: str,
        clean_data_dir: str = "",
        overwrite: bool = False,
        engine: EngineName = "local",
        workers: Count = 1,
        gpus_per_worker: GpuShare = 0.0,
        max_failures: CountOrNone = 100,
    ) -> None:
        """Writes where `data.detector` finds concepts in the pictures of `data.instance_data_dir`,
        as training with the same settings would find them.

        Args:
            output: Folder for boxes.jsonl, contact_sheet.png and summary.json.
            clean_data_dir: Pictures known to be without the concept, for the false alarms; empty
                takes `data.reference_data_dir`, and without that drawn pictures.
            overwrite: Replace what is in the output folder.
            engine: `local` is this process; `ray` has workers, here or on a cluster.
            workers: Of Ray.
            gpus_per_worker: Share of a GPU that each takes, such as 0.5; 0 works on the CPU.
            max_failures: Of shards, tables and patterns: so many pictures may be unreadable, or
                break what is done to them, before it stops; each is named and left out.
        """
        from shortcut_lightning.data import detect_folder, shard_verbs
        from shortcut_lightning.files.cache import Cache

        backbone: Any = None
        data: Any = datamodule
        alone = getattr(data, "resolution", 0) and not getattr(data, "bucketing", False)
        if model is not None or not alone:
            backbone, data = _parts_for("detect", model, datamodule)
        if self.is_global_zero:
            side, sizes = data.resolution or backbone.resolution, data.sizes(backbone)
            if is_stream(data.instance_data_dir):
                with open_pool(engine, workers, gpus_per_worker) as pool:
                    tally = shard_verbs.detect_shards(
                        data, side, output, pool, self.strategy.root_device, max_failures, sizes
                    )
                sys.stdout.write(f"{shard_verbs.told(tally)}\nwritten to {output}\n")
                return
            look = detect_folder.Look(
                data.detector,
                data.instance_data_dir,
                output,
                side,
                data.training.center_crop,
                clean_data_dir or data.reference_data_dir,
                overwrite,
                data.recursive,
                data.detection_side,
                sizes,
            )
            device = self.strategy.root_device
            with open_pool(engine, workers, gpus_per_worker) as pool:
                found = detect_folder.detect_folder(look, Cache(data.cache_dir), device, pool)
            sys.stdout.write(f"{detect_folder.told(found)}\nwritten to {output}\n")

    def _copy(
        self, verb: str, model: Any, data: Any, settings: tuple[Any, ...], asked: tuple[Any, ...]
    ) -> None:
        from shortcut_lightning.data import copies, shard_verbs

        backbone, data = _parts_for(verb, model, data)
        if not self.is_global_zero:
            return
        work = copies.protect_folder if verb == "protect" else copies.purify_folder
        wanted = copies.Copies(*settings)
        name = str(model.hparams.get("pretrained_model_name_or_path", ""))
        *engine, most = asked
        device = self.strategy.root_device
        with open_pool(*engine) as pool:
            if is_stream(data.instance_data_dir):
                tally = shard_verbs.copy_shards(
                    verb, data, backbone, device, wanted, name, pool, most
                )
                said = shard_verbs.told(tally)
            else:
                said = work(data, backbone, device, wanted, name, pool).table()
        sys.stdout.write(f"{said}\nwritten to {wanted.output}\n")


def _parts_for(verb: str, model: Any, data: Any) -> "tuple[Any, PersonalizationDataModule]":
    """The backbone and the data, for a verb that works on pictures without training."""
    from shortcut_lightning.data import PersonalizationDataModule

    if not isinstance(data, PersonalizationDataModule) or not hasattr(model, "backbone"):
        raise ValueError(
            f"`{verb}` needs data: PersonalizationDataModule and a model with a backbone, such as "
            "DreamBooth, whose resolution decides at which size pictures are looked at; a recipe "
            "like configs/quickstart.yaml has both."
        )
    return model.backbone, data


class ShortcutCLI(LightningCLI):
    """One configuration for every verb; a class path in YAML is the registry."""

    run_folder: Path | None = None
    _given = ""  # --ckpt_path as it was typed

    def __init__(self, args: list[str]) -> None:
        self._verb = args[0]
        super().__init__(
            args=args,
            trainer_class=ShortcutTrainer,
            # config.yaml has them; hyper-parameters would clash where model and data share a name.
            trainer_defaults={
                "log_every_n_steps": 10,
                "enable_autolog_hparams": False,
                "callbacks": [ConfigWins()],
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            parser_class=ShortcutParser,
            # "omegaconf" would resolve ${...} before the command line is merged.
            parser_kwargs={
                "parser_mode": "omegaconf+",
                "prog": PROGRAM,
                "logger": class_switches(),
            },
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # static there
        """The verb that was given alone: each takes its time, and the help needs none of them."""
        return {self._verb: not_options(self._verb)}

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        lend_ranges(parser)
        settings = {k: v for k, v in self.trainer_defaults.items() if k != "callbacks"}
        parser.set_defaults({f"trainer.{key}": value for key, value in settings.items()})
        # Not required, because a verb may do without; asked for below where it is needed.
        parser.add_lightning_class_args(LightningModule, "model", True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", True, required=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_optimizers(parser)
        parser.add_argument(
            "--name",
            type=str,
            default="",
            help="The run's name: a folder of --output_dir. Default: the first config file's name.",
        )
        parser.add_argument(
            "--output_dir",
            type=str,
            default="runs",
            help="Where runs are kept; each has its own folder <name>/version_N.",
        )
        parser.add_argument(
            "--evaluate_after_fit",
            type=bool,
            default=True,
            help="Whether `fit` runs the verb `test` on the trained model at its end.",
        )
        parser.add_argument(
            "--resume_other",
            type=bool,
            default=False,
            help="Let `fit --ckpt_path` go on with what was trained on other pictures, prompts or"
            " another model.",
        )

    def _parse_ckpt_path(self) -> None:
        """Lightning lets a checkpoint's hyper-parameters override config and command line; here
        what the user typed wins, also when resuming."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Without Lightning's warning about `args` beside `sys.argv`."""
        try:
            self.config = parser.parse_args(args)
        except OmegaConfBaseException as error:
            raise UserError(explain_interpolation(error)) from error
        seed = self.verb_config.seed_everything
        if seed is not None and not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}; give a whole number from 0 to {2**32 - 1}")

    @property
    def verb_config(self) -> Any:
        """The settings of the chosen verb."""
        return self.config[self.config.subcommand]

    def before_instantiate_classes(self) -> None:
        config, verb = self.verb_config, self.config.subcommand
        data = config.get("data.init_args") or {}
        if verb == "detect" and data.get("resolution") and not data.get("bucketing"):
            config.model = None  # whose side is all that is asked of it
        elif config.get("model") is None and "model" in self._arguments_of(verb):
            names = concrete("LightningModule", class_index())
            raise UserError(
                f"model: `{verb}` needs one; give --config FILE or --model CLASS"
                f"\n  classes: {listed(names)}"
            )
        for part in ("model", "data"):
            refuse_nulls(config, part)
        files = config_files(self.parser.args)
        config.name = config.name or (files[0].stem if files else "run")
        if config.get("ckpt_path"):
            runs = Path(config.output_dir) / config.name
            self._given = str(config.ckpt_path)
            config.ckpt_path = find_checkpoint(config.ckpt_path, runs, must_exist=verb != "fit")
            if config.ckpt_path and Path(config.ckpt_path).is_file():
                check_checkpoint(config.ckpt_path, verb)
        elif verb != "fit" and files and (files[0].parent / "checkpoints/last.ckpt").is_file():
            notice(
                f"{verb}: without --ckpt_path the model is as it was before training; trained:"
                f" --ckpt_path {files[0].parent / 'checkpoints/last.ckpt'}"
            )
        if str(config.trainer.precision or 32) not in _PRECISIONS:
            raise UserError(
                f"trainer.precision is '{config.trainer.precision}'; allowed: 32-true, bf16-mixed,"
                " 16-mixed. What does not learn is kept in halves by "
                "--model.compute.frozen_dtype bf16."
            )
        if verb == "fit" and (line := memory_told(config)):
            notice(line)
        if config.trainer.default_root_dir is not None:
            notice("trainer.default_root_dir does not move the run folder; --output_dir does")

    def instantiate_classes(self) -> None:
        self._as_asked = self.config.clone()
        config = self.verb_config
        with self._user_errors():
            if not config.trainer.fast_dev_run:
                output_dir = Path(config.output_dir)
                self.run_folder = prepare_loggers(config.trainer, config.name, output_dir)
            super().instantiate_classes()
            if self.config.subcommand == "fit":
                choose_optimizers(self.model, config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        self.config = self._as_asked  # config.yaml does not name this run's folder
        trainer = self._get(self.config_init, "trainer")
        given = trainer.callbacks or []
        callbacks = list(given) if isinstance(given, list | tuple) else [given]
        rehearsal, saves = trainer.fast_dev_run, _has(callbacks, Checkpoint)
        callbacks.insert(0, StopAtNaN())
        if trainer.enable_checkpointing is not False and not rehearsal:
            callbacks.append(KeepLast(regular=not saves))
        if self.config.subcommand == "fit" and not rehearsal and not _has(callbacks, Look):
            callbacks.append(Look())  # to be asked from outside
        if trainer.enable_progress_bar is not False and not _has(callbacks, ProgressBar):
            callbacks.append(StepBar())
        if self.config.subcommand == "predict" and not _has(callbacks, SaveImages):
            callbacks.append(SaveImages())  # or what was made would be thrown away
        quiet_wandb(trainer.logger if isinstance(trainer.logger, list) else [])
        with self._user_errors("trainer: "):
            built = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        if type(built.strategy.checkpoint_io) is TorchCheckpointIO:
            built.strategy.checkpoint_io = WholeFiles()
        return built

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        arguments = self._arguments_of(subcommand)
        if "return_predictions" in arguments:  # callbacks keep what is worth keeping
            kwargs["return_predictions"] = False
        if subcommand == "test" and callbacks_of(self.trainer, Evaluation):
            kwargs["verbose"] = False  # its numbers are said with their intervals at the end
        return {key: value for key, value in kwargs.items() if key in arguments}

    def _run_subcommand(self, subcommand: str) -> None:
        with self._user_errors():
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Only what was trained on the same is resumed; the checkpoints will say what that is."""
        now = facts(self.model, self.datamodule)
        checkpoint = self._get(self.config_init, "ckpt_path")
        if checkpoint and not self._get(self.config, "resume_other"):
            refuse_other(checkpoint, self._given, now)
        for callback in callbacks_of(self.trainer, ConfigWins):
            callback.facts = now

    def after_fit(self) -> None:
        """Evaluation is the verb `test`, on the model just trained."""
        source = self.datamodule or self.model
        if (
            self._get(self.config, "evaluate_after_fit")
            and not self.verb_config.trainer.fast_dev_run
            and is_overridden("test_step", self.model, LightningModule)
            and is_overridden("test_dataloader", source)
        ):
            if takes_pictures(self.trainer, self.model, self.datamodule):
                self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            else:
                notice("no pictures are made: no callback takes them, as Evaluation does")
                for writer in callbacks_of(self.trainer, ReportWriter):
                    writer.on_test_end(self.trainer, self.model)
        self._tell()

    def after_test(self) -> None:
        """Says what came out, and where."""
        self._tell()

    after_predict = after_validate = after_test

    def _tell(self) -> None:
        """The numbers of an evaluation and the places of a run, as a verb's last lines."""
        if not is_first_process() or self.run_folder is None:
            return
        evaluations = callbacks_of(self.trainer, Evaluation)
        said = numbers(evaluations[0].estimates) if evaluations else ""
        sys.stdout.write(f"\n{said}{places(self.run_folder)}")

    def after_protect(self) -> None:
        """Copies are no run: the run folder that was claimed goes."""
        if self.run_folder and is_first_process():
            discard_if_empty(self.run_folder)

    after_purify = after_detect = after_protect

    def _arguments_of(self, verb: str) -> set[str]:
        return set(inspect.signature(getattr(self.trainer_class, verb)).parameters)

    @contextmanager
    def _user_errors(self, where: str = "") -> Iterator[None]:
        """Turns the exceptions that are a user's mistake into `UserError`."""
        try:
            yield
        except stopping.Stopped as stopped:
            if self.run_folder and is_first_process():
                discard_if_empty(self.run_folder)
            stopped.kept = stopped.kept or self._kept()
            raise
        except Exception as error:
            if self.run_folder and is_first_process():
                discard_if_empty(self.run_folder)
            config = dict(self.verb_config.items())
            said = as_user_error(error, config, str(config.get("output") or self.run_folder or ""))
            if said is None:
                raise
            raise type(said)(f"{where}{said}") from error

    def _kept(self) -> str:
        """For who stopped the verb: what is kept, and how to go on."""
        verb = self.config.subcommand
        if verb in ("protect", "purify"):
            return "what was computed is kept in data.cache_dir; the same command goes on"
        if verb != "fit":
            return f"an unfinished `{verb}` keeps nothing; the same command starts again"
        last = self.run_folder / LAST if self.run_folder else None
        if last is None or not last.is_file():
            given = self._get(self.config_init, "ckpt_path")
            again = f"goes on from {given}" if given else "starts again"
            return f"no step was kept; the same command {again}, with the stages it has made"
        step = self.trainer.global_step
        return f"step {step} is kept in {last}; to go on: the same command with --ckpt_path last"


class Merged(ShortcutCLI):
    """Puts a command line's settings together and builds nothing."""

    settings: dict[str, Any]

    def _set_seed(self) -> None: ...

    def instantiate_classes(self) -> None:
        text = self._parser(self.config.subcommand).dump(self.verb_config)
        self.settings = yaml.safe_load(text)

    def _run_subcommand(self, subcommand: str) -> None: ...


def not_options(verb: str) -> set[str]:
    """Arguments of a verb's method that other settings make."""
    return _NOT_OPTIONS & set(inspect.signature(getattr(ShortcutTrainer, verb)).parameters)


def takes_pictures(trainer: Trainer, model: Any, data: Any) -> bool:
    """Whether anybody looks at the pictures that a test makes: a callback is handed them batch by
    batch. What other modules and data test are no pictures, or numbers of their own."""
    from shortcut_lightning.data import PersonalizationDataModule

    if not isinstance(data, PersonalizationDataModule):
        return True
    if not type(model).test_step.__module__.startswith("shortcut_lightning."):
        return True
    hooks = (type(each).on_test_batch_end for each in callbacks_of(trainer, Callback))
    return any(not hook.__module__.startswith("lightning.") for hook in hooks)


def _has(callbacks: list[Any], kind: type) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def run(argv: list[str]) -> None:
    """Runs a command line that passed the first look.

    Raises:
        UserError: a user's mistake.
    """
    if argv[0] == "bench":
        from shortcut_lightning.cli.bench import bench

        bench(argv[1:], run)
        return
    if argv[0] == "results":
        from shortcut_lightning.cli.results import results

        results(argv[1:])
        return
    quiet()
    if argv[0] == "verify":
        from shortcut_lightning.cli.verify import verify

        verify(argv[1:], run, merged)
        return
    if argv[0] == "audit":
        from shortcut_lightning.cli.audit import audit

        audit(argv[1:])
        return
    _prepare(argv)
    try:
        ShortcutCLI(with_paths(argv))
    finally:
        wandb = sys.modules.get("wandb")
        if wandb and wandb.run:  # or the next run of this process would join it
            wandb.finish()


def merged(argv: list[str]) -> dict[str, Any]:
    """The settings that a command line comes to, as its run's config.yaml has them.

    Raises:
        UserError: a user's mistake.
    """
    _prepare(argv)
    return Merged(argv).settings


def _prepare(argv: list[str]) -> None:
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)  # ${data.x} from any file
    import_named(argv, class_index())
