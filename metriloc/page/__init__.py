"""The one look of every HTML page: document, style, tables, figures and curves for whoever writes a report.

Pages are single files. A policy forbids every request, all text from outside is escaped, and light and dark
follow the reader's system. Nothing here knows a pose, a method or a benchmark.
"""

from metriloc.page.charts import line_chart, spark_line
from metriloc.page.document import document, embedded_json, escaped
from metriloc.page.parts import data_uri, figure, figures, meter, rows_table, scrolled, table

__all__ = [
    # the whole
    "document",
    "escaped",
    "embedded_json",
    # its parts
    "data_uri",
    "figure",
    "figures",
    "meter",
    "rows_table",
    "scrolled",
    "table",
    # curves
    "line_chart",
    "spark_line",
]
