# A worker that computes with PyTorch too, and can import networks of the SNN libraries.
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY topologies topologies
COPY router router
COPY workers workers
COPY loadtest loadtest
RUN python -m venv /opt/spikerouter
RUN /opt/spikerouter/bin/pip install --no-cache-dir --constraint constraints.txt setuptools setuptools-scm
RUN /opt/spikerouter/bin/pip install --no-cache-dir --no-build-isolation --constraint constraints.txt '.[torch]'

FROM python:3.11.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home spikerouter
COPY --from=build /opt/spikerouter /opt/spikerouter
ENV PATH=/opt/spikerouter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 9100
STOPSIGNAL SIGTERM
CMD ["spikerouter", "worker"]
