"""Prefect flows, deployments and the `overwatt` command line. Knows neither geometry nor tensors."""

from flows import prefect_env

prefect_env.apply()
