"""What is done to a whole data folder: erasing a viewer, backup, restore; by hand or asked of the running engine."""
