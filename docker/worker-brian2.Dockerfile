# A worker that steps equations given as text with Brian2 too, and deploys networks that have such.
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY topologies topologies
COPY router router
COPY workers workers
COPY loadtest loadtest
RUN python -m venv /opt/spikerouter
RUN /opt/spikerouter/bin/pip install --no-cache-dir --constraint constraints.txt setuptools
RUN /opt/spikerouter/bin/pip install --no-cache-dir --no-build-isolation --constraint constraints.txt '.[numba,brian2]'

FROM python:3.11.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home spikerouter
COPY --from=build /opt/spikerouter /opt/spikerouter
ENV PATH=/opt/spikerouter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 9100
STOPSIGNAL SIGTERM
CMD ["spikerouter", "worker"]
