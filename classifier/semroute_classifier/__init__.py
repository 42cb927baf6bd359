"""What is asked: utterances, encoders, index and verdict. Knows no model, no money and no wire."""
