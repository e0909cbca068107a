"""The verbs of the command line and what each does, in one line.

To add one: write its line here, and a method of the same name on `ShortcutTrainer` in `app.py`.
The method's typed arguments become options; `model` and `datamodule` are filled in when named.
A verb whose configuration is of another kind has a file of its own: `audit.py`, `bench.py`,
`results.py`, `verify.py`; `presets` is answered in `first_look.py`.
"""

VERBS = {
    "fit": "Prepare the photographs, train, evaluate and write the report.",
    "validate": "Compute the validation loss of a model or checkpoint.",
    "test": "Run the evaluation of `fit` on a model or checkpoint.",
    "predict": "Generate images for prompts.",
    "protect": "Perturb photographs before they are published; one is enough.",
    "purify": "Clean photographs that may be protected.",
    "detect": "Show where a detector finds watermarks, codes or text in a folder of pictures.",
    "audit": "Ask whether a model was trained on given pictures, with controls and error rates.",
    "verify": "Is my protection worth anything? Learn from photographs clean, noisy and protected.",
    "bench": "Run a matrix of attacks and defences on many subjects, and write one table.",
    "presets": "List the recipes and fragments that come with the program, one line each.",
    "results": "Render the pages of results from the rows that are kept beside the recipes.",
}

PROGRAM = "shortcut-lightning"


def overview() -> str:
    """What `--help` without a verb shows."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {line}" for verb, line in VERBS.items())
    return (
        f"usage: {PROGRAM} VERB [--config FILE or PRESET]... [--key value]...\n\n{verbs}\n\n"
        f"  {PROGRAM} VERB --help           every option of a verb\n"
        f"  {PROGRAM} VERB --print_config   the merged configuration, ready to save as a file\n"
        f"  {PROGRAM} VERB --model.help CLASS, --data.help CLASS   options of a class\n"
    )
