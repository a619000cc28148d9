"""The service on Ray Serve, for several machines or GPUs; `hvpnet_runtime.serving.on_ray.app:build` makes it."""
