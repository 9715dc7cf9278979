FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Without pip: what runs in the end cannot install anything.
RUN python -m venv --without-pip /opt/callflow
# Before the source, so that a change there does not install everything anew.
COPY requirements/run.lock requirements/build.lock requirements/
RUN pip --python /opt/callflow/bin/python install --require-hashes --no-deps -r requirements/run.lock \
    && pip install --require-hashes --no-deps -r requirements/build.lock
COPY pyproject.toml README.md LICENSE ./
COPY alembic alembic
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/callflow/bin/python install --no-deps dist/*.whl \
    # What the packages bring along for those who develop them.
    && find /opt/callflow -type d '(' -name tests -o -path '*/holidays/locale' ')' -prune -exec rm -r {} + \
    && find /opt/callflow -type f '(' -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' ')' -delete

FROM python:3.13-slim
LABEL org.opencontainers.image.title="callflow-service" \
      org.opencontainers.image.description="Change a device's call flow through MOR's device_callflow_update call, and let any switch follow it" \
      org.opencontainers.image.licenses="MIT"
RUN groupadd --gid 10001 callflow \
    && useradd --uid 10001 --gid callflow --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin callflow
COPY --from=build /opt/callflow /opt/callflow
ENV PATH="/opt/callflow/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CALLFLOW_HOST=0.0.0.0
# By number: an orchestrator that refuses root cannot tell who a name is.
USER 10001:10001
EXPOSE 8000
# No proxy that the environment names may come between.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('CALLFLOW_PORT', '8000') + '/health/ready', timeout=4)"]
ENTRYPOINT ["callflow-service"]
CMD ["serve"]
