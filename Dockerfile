# clrsearch with PostgreSQL's driver, for docker-compose.yml. torch brings its own CUDA libraries.
FROM python:3.12-slim

COPY pyproject.toml README.md LICENSE /src/
COPY clrsearch /src/clrsearch
RUN pip install --no-cache-dir '/src[postgres]' && rm -r /src

# Any user may write to the one: a new volume begins as a copy of the folder. The other is mounted.
RUN mkdir -m 1777 /checkpoints && mkdir /tasks

# HOME and USER: the user that compose names need not be in /etc/passwd.
ENV HOME=/tmp USER=clrsearch PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000
WORKDIR /tasks
CMD ["clrsearch", "--help"]
