"""What can make frames: OpenMM systems, ASE atoms with a calculator, recordings, and the built-in demos."""
