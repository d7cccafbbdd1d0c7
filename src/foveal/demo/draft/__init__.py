"""The demo model's draft: a language model of five layers that guesses what the demo model will say next."""
