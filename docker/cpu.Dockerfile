# The service on a CPU. In the root of the checkout:
#   docker build -f docker/cpu.Dockerfile -t hvpnet:cpu .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/bundle:/bundle:ro" hvpnet:cpu
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS wheel
# What compiles is not in the image, so its version does not matter to it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS install
ARG EXTRAS=serve,cpu,grounding
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/hvpnet
RUN /opt/hvpnet/bin/python -m pip install --no-cache-dir "$(ls /wheels/*.whl)[${EXTRAS}]"
RUN /opt/hvpnet/bin/python -m pip check && /opt/hvpnet/bin/hvpnet --version

FROM python:${PYTHON}-slim
RUN useradd --uid 10001 --create-home hvpnet
COPY --from=install /opt/hvpnet /opt/hvpnet
ENV PATH=/opt/hvpnet/bin:${PATH}
USER 10001
WORKDIR /home/hvpnet
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["hvpnet"]
CMD ["serve", "/bundle", "--host", "0.0.0.0"]
