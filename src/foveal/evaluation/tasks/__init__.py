"""Question-answering tasks with known answers: rendered scenes, easy-VQA, clip-art categories. Needs no torch."""
