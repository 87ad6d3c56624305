"""The pure core: values in, values out. Time and chance are arguments."""
