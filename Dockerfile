# qscope on a CUDA machine: docker build -t qscope . && docker run --gpus all -it qscope
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# Node 22 from its own image: Ubuntu's is older than the packages want.
COPY --from=node:22-bookworm-slim /usr/local/bin/node /usr/local/bin/node
COPY --from=node:22-bookworm-slim /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
 && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git python3 python3-venv tini \
 && rm -rf /var/lib/apt/lists/*

# nvidia-smi is not there while an image is built, so the CUDA build of torch is asked for by name.
ENV QSCOPE_TORCH=cuda

WORKDIR /opt/qscope
COPY . .
RUN node scripts/setup.mjs && ln -s /opt/qscope/cli/bin/qscope.js /usr/local/bin/qscope

# Runs are written below the current folder: mount one here.
WORKDIR /data
ENTRYPOINT ["tini", "--", "qscope"]
CMD ["--help"]
