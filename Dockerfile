# One image per service: docker build --build-arg SERVICE=lobby|trajectory|imd|gateway .

FROM python:3.11-slim-bookworm AS build
ARG SERVICE
RUN case "$SERVICE" in \
    lobby|trajectory|imd) echo "shared services/$SERVICE" ;; \
    gateway) echo "shared clients/python services/gateway" ;; \
    *) echo "SERVICE is '$SERVICE'; pass --build-arg SERVICE=lobby, trajectory, imd or gateway" >&2; exit 1 ;; esac > /packages
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# Third-party packages: those that this service needs, as requirements.lock pins them, each checked against its hash.
COPY requirements.lock deploy/pinned.py ./
COPY shared/pyproject.toml shared/
COPY clients/python/pyproject.toml clients/python/
COPY services/${SERVICE}/pyproject.toml services/${SERVICE}/
RUN --mount=type=cache,target=/var/cache/pip \
    python pinned.py requirements.lock $(printf '%s/pyproject.toml ' $(cat /packages)) \
        $(test "$SERVICE" != trajectory || echo s3fs) > service.txt \
    && python pinned.py requirements.lock hatchling > tools.txt \
    && python -m venv --without-pip /opt/narupa \
    && python -m venv tools \
    && tools/bin/python -m pip install --quiet --only-binary :all: --require-hashes -r tools.txt \
    && tools/bin/python -m pip --python /opt/narupa/bin/python install --quiet --only-binary :all: --require-hashes -r service.txt

# Our own packages, built without a network.
COPY shared shared
COPY clients/python clients/python
COPY services/${SERVICE} services/${SERVICE}
RUN tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir wheels $(printf './%s ' $(cat /packages)) \
    && tools/bin/python -m pip --python /opt/narupa/bin/python install --quiet --no-deps --no-index wheels/*.whl \
    && ln -s narupa-${SERVICE} /opt/narupa/bin/narupa-service \
    && /opt/narupa/bin/python -m compileall -q /opt/narupa/lib


FROM python:3.11-slim-bookworm
ARG SERVICE
RUN groupadd --gid 10001 narupa \
    && useradd --uid 10001 --gid narupa --no-create-home --home-dir /var/lib/narupa --shell /usr/sbin/nologin narupa \
    && install -d -o narupa -g narupa -m 0700 /var/lib/narupa
COPY --from=build /opt/narupa /opt/narupa
ENV PATH=/opt/narupa/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    NARUPA_SERVICE=${SERVICE} \
    NARUPA_LOBBY_PORT=38810 NARUPA_LOBBY_LOG_FORMAT=json NARUPA_LOBBY_STATE_DIR=/var/lib/narupa \
    NARUPA_TRAJECTORY_PORT=38811 NARUPA_TRAJECTORY_LOG_FORMAT=json \
    NARUPA_IMD_PORT=38812 NARUPA_IMD_LOG_FORMAT=json NARUPA_IMD_STATE_DIR=/var/lib/narupa \
    NARUPA_GATEWAY_PORT=38802 NARUPA_GATEWAY_WEBSOCKET_PORT=38801 NARUPA_GATEWAY_LOG_FORMAT=json
USER narupa
WORKDIR /var/lib/narupa
EXPOSE 38801-38802 38810-38812
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["sh", "-c", "exec python -m narupa_shared.healthcheck \"$NARUPA_SERVICE\""]
ENTRYPOINT ["narupa-service"]
