"""What one may ask a replica of these tables. ``{flights}`` is the name of a table in the log."""

from __future__ import annotations

QUESTIONS: dict[str, str] = {
    "The busiest routes": """
        SELECT o.name AS "from", coalesce(d.name, f.dest) AS "to", count(*) AS flights,
               round(avg(f.arr_delay), 1) AS minutes_late
        FROM {flights} f JOIN {airports} o ON o.faa = f.origin LEFT JOIN {airports} d ON d.faa = f.dest
        GROUP BY ALL ORDER BY flights DESC, "from", "to" LIMIT 5
    """,
    "Airlines by delay": """
        SELECT a.name AS airline, count(*) AS flights, round(avg(dep_delay), 1) AS minutes_late,
               round(100 * avg((dep_time IS NULL)::INTEGER), 1) AS cancelled_percent
        FROM {flights} f JOIN {airlines} a USING (carrier)
        GROUP BY ALL ORDER BY minutes_late DESC LIMIT 5
    """,
    "The planes that flew most, and where they were last": """
        SELECT c.tailnum, p.manufacturer, p.model, c.flights, c.miles, c.origin || '-' || c.dest AS last_flight
        FROM {aircraft} c JOIN {planes} p USING (tailnum)
        ORDER BY c.flights DESC, c.tailnum LIMIT 5
    """,
    "What the weather does": """
        SELECT CASE WHEN w.visib < 1 THEN 'fog' WHEN w.precip > 0.1 THEN 'heavy rain' WHEN w.precip > 0 THEN 'rain'
                    WHEN w.wind_gust > 35 THEN 'gusts' ELSE 'fair' END AS weather,
               count(*) AS flights, round(avg(f.dep_delay), 1) AS minutes_late,
               round(100 * avg((f.dep_time IS NULL)::INTEGER), 1) AS cancelled_percent
        FROM {flights} f JOIN {weather} w USING (origin, time_hour)
        GROUP BY ALL ORDER BY minutes_late DESC
    """,
}
