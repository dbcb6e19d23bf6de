"""What starts simulations, and where: as a process here, in a container, on Kubernetes, or through Slurm."""
