"""The recipe that trained the shipped adapter: `python -m foveal.demo.training --help`."""
