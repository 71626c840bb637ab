"""ReFrame's settings for the Slurm of `make testbed-up`.

For a real cluster, copy this file, and set the names of its partitions and the options of your jobs in `access`.
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
