"""Entry point: `python train.py fit --config configs/quickstart.yaml`."""

from shortcut_lightning.cli import main

if __name__ == "__main__":
    main()
