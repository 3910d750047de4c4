FROM python:3.11-slim

# For a build of torch other than the usual one: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL

RUN useradd --uid 10001 --create-home loom && install -d -o loom -g loom /data

WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY graph graph
COPY nodes nodes
COPY server server
COPY workflows workflows
RUN pip install --no-cache-dir -c constraints.txt ".[postgresql]" && rm -rf /source/*

USER loom
WORKDIR /data
ENV LATENTLOOM_DATA=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8188
HEALTHCHECK --start-period=10s --interval=15s --timeout=5s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8188/health', timeout=4)"]

# Seen from other machines it asks for keys, and does not start before there is one.
CMD ["latentloom", "serve", "--listen", "0.0.0.0"]
