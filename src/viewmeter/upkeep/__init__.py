"""What is done to a whole data folder: erasing a viewer, backup, restore; by hand or asked of the running engine.

Of the embedded topology, so this room knows its files. Scaled out, each part has tools of its own for this.
"""
