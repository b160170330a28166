"""What can be asked for, as data: imports the standard library, errors and files, nothing else."""
