"""`python -m foveal.demo.draft`. The command lives in a module of its own: worker processes import it by name."""

from foveal.demo.draft.command import main

if __name__ == "__main__":
    main()
