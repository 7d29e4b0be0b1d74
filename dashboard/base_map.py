"""The folium maps. Leaflet comes from this package's static/ folder and nothing from anywhere else.

The base map of a city stays the same from run to run, so that the browser keeps its zoom and position; what
changes is the layer of cells.
"""

from __future__ import annotations

from typing import Any

import folium
from branca.element import Figure
from folium.template import Template
from folium.utilities import JsCode

from trafficcast.city import City

# Relative to where Streamlit serves the map component, so that a server under a base path works too.
LEAFLET = "../../app/static/leaflet-1.9.4/"
SCRIPTS = [("leaflet", LEAFLET + "leaflet.js")]
STYLE_SHEETS = [("leaflet_css", LEAFLET + "leaflet.css")]
STYLE = """<style>
.leaflet-container { background: #fbfbfb; }
.leaflet-container .leaflet-interactive { cursor: pointer; outline: none; }
</style>"""

CELL_STYLE = JsCode("""function (feature) {
    return {color: "#777777", weight: 0.4, opacity: 0.2, fillColor: feature.properties.fill, fillOpacity: 1};
}""")
CELL_TOOLTIP = JsCode("""function (feature, layer) {
    const p = feature.properties;
    layer.bindTooltip("row " + p.row + ", column " + p.col + ": <b>" + p.value + "</b>", {sticky: true});
}""")
OUTLINE_STYLE = JsCode('function () { return {color: "#111111", weight: 2.5, fill: false}; }')


class OfflineMap(folium.Map):
    """A folium map that loads the vendored Leaflet only: no jQuery, no Bootstrap, no icon fonts."""

    default_js = SCRIPTS
    default_css = STYLE_SHEETS


class MoveTogether(folium.MacroElement):
    """Every map of the page shows the part that the one just moved shows; each lies in a frame of its own."""

    _template = Template("""
        {% macro script(this, kwargs) %}
        {{ this._parent.get_name() }}.on("moveend", function (event) {
            if (window.led) return;
            for (let i = 0; i < window.parent.frames.length; i++) {
                const other = window.parent.frames[i];
                try {
                    if (other === window || !other.map || !other.initComponent) continue;
                    other.led = true;
                    other.map.setView(event.target.getCenter(), event.target.getZoom(), {animate: false});
                } catch (error) {
                    continue;  // a frame that is none of ours
                } finally {
                    other.led = false;
                }
            }
        });
        {% endmacro %}
    """)


def base_map(city: City, raster: str | None, tiles_url: str | None, tiles_attribution: str) -> folium.Map:
    """The constant part of a city's map.

    Args:
        city: the box that the map shows at first.
        raster: data URI of the picture of where vehicles report (see density.py), None without records.
        tiles_url: a tile server to use in its place, {z}/{x}/{y} in its address.
        tiles_attribution: what that server wants to be said of it.
    """
    bounds = [[city.south, city.west], [city.north, city.east]]
    centre = [(city.south + city.north) / 2, (city.west + city.east) / 2]
    the_map = OfflineMap(
        location=centre,
        tiles=None,
        zoom_start=12,
        attribution_control=bool(tiles_url),
        zoom_snap=0,
        zoom_delta=0.5,
        wheel_px_per_zoom_level=120,
        max_zoom=18,
        font_size="12px",
    )
    figure = the_map.get_root()
    assert isinstance(figure, Figure)
    figure.header.add_child(folium.Element(STYLE))
    if tiles_url:
        # A space: folium insists on an attribution.
        folium.TileLayer(tiles_url, attr=tiles_attribution or " ").add_to(the_map)
    elif raster:
        folium.raster_layers.ImageOverlay(raster, bounds, pixelated=False).add_to(the_map)
    the_map.fit_bounds(bounds)
    MoveTogether().add_to(the_map)
    return the_map


def cell_layer(cells: dict[str, Any] | None, outline: list[list[float]] | None) -> folium.FeatureGroup:
    """The changing part: the cells (GeoJSON, see cells.py; None: no cells) and the chosen cell's outline."""
    group = folium.FeatureGroup(control=False)
    if cells is not None:
        folium.GeoJson(cells, style=CELL_STYLE, on_each_feature=CELL_TOOLTIP, control=False).add_to(group)
    if outline is not None:
        polygon = {"type": "Polygon", "coordinates": [outline]}
        chosen = {"type": "Feature", "properties": {}, "geometry": polygon}
        folium.GeoJson(chosen, style=OUTLINE_STYLE, interactive=False, control=False).add_to(group)
    return group
