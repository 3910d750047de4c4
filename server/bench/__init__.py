"""What `latentloom bench` measures, one module each."""
