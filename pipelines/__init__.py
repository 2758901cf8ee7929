"""What happens to one site on one date, one module a step. Knows neither Prefect nor network layers."""
