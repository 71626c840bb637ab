"""ReFrame's settings for the Slurm of `make testbed-up`, to be copied for a real cluster: give the names of its
partitions, and in `access` what your jobs must ask for.
"""

site_configuration = {
    "systems": [
        {
            "name": "testbed",
            "hostnames": [".*"],
            "partitions": [
                {
                    "name": "debug",
                    "scheduler": "slurm",
                    "launcher": "srun",
                    "access": ["--partition=debug", "--exclusive"],
                    "environs": ["builtin"],
                    "time_limit": "30m",
                    "env_vars": [["GLOO_SOCKET_IFNAME", "eth0"]],
                }
            ],
        }
    ],
    "environments": [{"name": "builtin"}],
    "general": [{"resolve_module_conflicts": False}],
}
