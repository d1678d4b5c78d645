"""What recipes train and validate on: batches of each method, validations, and the pictures that they draw."""
