"""`python -m foveal.demo.training`. The command lives in a module of its own: worker processes import it by name."""

from foveal.demo.training.command import main

if __name__ == "__main__":
    main()
