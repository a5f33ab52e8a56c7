"""Ways to run a job's command somewhere: `base` says what a launcher must do, `local` does it on this machine, `slurm`, `ray` and
`sky` hand it to a cluster's queue (`queued`)."""
