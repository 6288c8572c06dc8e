"""`python -m tools.dashboards`: writes the dashboards' JSON to deploy/grafana/dashboards."""

from tools.dashboards.grafana_json import DASHBOARDS, FOLDER, text_of

if __name__ == "__main__":
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.name}.json").write_text(text_of(dashboard), "utf-8")
