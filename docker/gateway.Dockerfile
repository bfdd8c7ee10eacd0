# The gateway: HTTP in, Kafka out. It also has the commands that deploy and show networks.
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY topologies topologies
COPY router router
COPY workers workers
COPY loadtest loadtest
RUN python -m venv /opt/spikerouter
RUN /opt/spikerouter/bin/pip install --no-cache-dir --constraint constraints.txt setuptools
RUN /opt/spikerouter/bin/pip install --no-cache-dir --no-build-isolation --constraint constraints.txt .

FROM python:3.11.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home spikerouter
COPY --from=build /opt/spikerouter /opt/spikerouter
ENV PATH=/opt/spikerouter/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "-m", "uvicorn", "router.gateway.app:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", "--http", "router.gateway.http:Connection", "--ws", "none", "--h11-max-incomplete-event-size", "8192"]
