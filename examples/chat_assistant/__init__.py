"""What intaglio-chat is made from: questions, what their answers must be like, and prompts for the base."""
