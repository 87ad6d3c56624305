# One image for all processes: web (the default), job processes, sweeper, migration. See compose.yaml and docs/operations.md.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    AGENTOPS_ENV=production AGENTOPS_LOCAL=/app/.local
RUN useradd --system --create-home --uid 10001 agentops
WORKDIR /app

COPY requirements.txt ./
RUN pip install --require-hashes --only-binary :all: -r requirements.txt

COPY --chown=agentops . .
RUN mkdir -p .local && chown agentops .local
USER agentops

# Static files and the trained classifier belong to the image, so that no machine needs a shared disk.
# These two commands connect to nothing; the values only satisfy the settings and stay out of the image.
RUN export SECRET_KEY="$(python -c 'import secrets; print(secrets.token_urlsafe(60))')" ALLOWED_HOSTS=build.invalid \
        DATABASE_URL=postgresql://build.invalid/none REDIS_URL=redis://build.invalid:6379/0 \
        BANK_DATABASE_URL=postgresql://build.invalid/bank && \
    python manage.py collectstatic --noinput && python manage.py train

EXPOSE 8000
CMD ["uvicorn", "agentops.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "20", "--ws-per-message-deflate", "false"]
