# The CPU build: docker build -t musicvae . && docker run --rm -v "$PWD/music:/music" musicvae sample melody-2 --out /music/ideas
FROM python:3.11-slim
COPY . /src
RUN pip install --no-cache-dir -c /src/constraints.txt "/src[pictures]"
ENTRYPOINT ["musicvae"]
CMD ["--help"]
