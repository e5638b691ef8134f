# docker build -t infertool . && docker run --rm -v "$PWD:/models" infertool inspect model.onnx
FROM python:3.11.9-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY infer_runtime infer_runtime
COPY passes passes
COPY quant quant
COPY infer_native infer_native
COPY infer_tool infer_tool
RUN python -m venv /opt/infertool \
    && /opt/infertool/bin/pip install --no-cache-dir -c constraints.txt '.[engines]'

FROM python:3.11.9-slim-bookworm
RUN useradd --create-home --uid 10001 infertool
COPY --from=build /opt/infertool /opt/infertool
ENV PATH=/opt/infertool/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER infertool
WORKDIR /models
ENTRYPOINT ["infertool"]
CMD ["doctor"]
