"""Log-probabilities of the tokens of prompts: computed a few rows at a time, collected per sequence."""
