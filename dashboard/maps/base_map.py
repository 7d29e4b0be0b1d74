"""The folium maps of a city; Leaflet is loaded from the dashboard's static/ folder, and nothing from elsewhere.

The base map of a city stays the same from run to run, so that the browser keeps its zoom and position; what
changes is the layer of cells.
"""

from __future__ import annotations

from typing import Any

import folium
from branca.element import Figure
from folium.template import Template

from trafficcast.config.city import City

# Relative to where Streamlit serves the map component, so that a server under a base path works too.
_LEAFLET = "../../app/static/leaflet-1.9.4/"
_SCRIPTS = [("leaflet", _LEAFLET + "leaflet.js")]
_STYLE_SHEETS = [("leaflet_css", _LEAFLET + "leaflet.css")]
_STYLE = """<style>
.leaflet-container { background: #fbfbfb; }
.leaflet-container .leaflet-interactive { cursor: pointer; outline: none; }
.leaflet-container .leaflet-tooltip { white-space: normal; width: max-content; max-width: 180px; }
</style>"""

_AREA_STYLE = {"color": "#3b3b3b", "weight": 1.3, "dashArray": "5 4", "fill": False}


class _OfflineMap(folium.Map):
    """A folium map that loads the vendored Leaflet only: no jQuery, no Bootstrap, no icon fonts."""

    default_js = _SCRIPTS
    default_css = _STYLE_SHEETS


class _MoveTogether(folium.MacroElement):
    """A script that makes all maps of a city follow when a person moves one of them; each map has its own frame."""

    _template = Template("""
        {% macro script(this, kwargs) %}
        (function (map) {
            window.place = {{ this.place | tojson }};
            // What a map does by itself while it is laid out moves no other.
            let touched = false;
            for (const kind of ["pointerdown", "wheel", "keydown"]) {
                map.getContainer().addEventListener(kind, () => { touched = true; }, {capture: true, passive: true});
            }
            function others() {
                const found = [];
                for (let i = 0; i < window.parent.frames.length; i++) {
                    const other = window.parent.frames[i];
                    try {
                        if (other !== window && other.map && other.place === window.place) found.push(other);
                    } catch (error) {
                        continue;  // a frame that is none of ours
                    }
                }
                return found;
            }
            function follow(frame, centre, zoom) {
                frame.led = true;
                frame.map.setView(centre, zoom, {animate: false});
                frame.led = false;
                frame.moved = true;
            }
            map.on("moveend", function () {
                if (window.led || !touched) return;
                window.moved = true;
                others().forEach(other => follow(other, map.getCenter(), map.getZoom()));
            });
            // One that comes later begins where the others are.
            const moved = others().find(other => other.moved);
            if (moved) map.setView(moved.map.getCenter(), moved.map.getZoom(), {animate: false});
        })({{ this._parent.get_name() }});
        {% endmacro %}
    """)

    def __init__(self, city: City) -> None:
        super().__init__()
        self.place = f"{city.name} {city.north} {city.south} {city.west} {city.east}"


class _Cells(folium.MacroElement):
    """The cells as rectangles, drawn by the browser from the box, and the outline of the chosen one.

    A tooltip is shown as plain text, because the names of areas come from a file.
    """

    _template = Template("""
        {% macro script(this, kwargs) %}
        (function (map) {
            const grid = {{ this.grid | tojson }};
            const height = (grid.north - grid.south) / grid.rows;
            const width = (grid.east - grid.west) / grid.cols;
            function rectangle(row, col, style) {
                const north = grid.north - row * height;
                const west = grid.west + col * width;
                return L.rectangle([[north - height, west], [north, west + width]], style);
            }
            const cells = L.featureGroup().bindTooltip(function (cell) {
                const words = document.createElement("span");
                words.textContent = cell.options.words;
                return words;
            }, {sticky: true});
            const style = {color: "#777777", weight: 0.4, opacity: 0.2, fillOpacity: 1};
            {{ this.colours | tojson }}.forEach(function (fillColor, i) {
                const words = grid.words[i];
                rectangle(Math.floor(i / grid.cols), i % grid.cols, {...style, fillColor, words}).addTo(cells);
            });
            // Its tooltip makes each cell a stop of the Tab key, a thousand of them before what follows the map.
            cells.on("add", () => cells.eachLayer(cell => cell.getElement().setAttribute("tabindex", "-1")));
            cells.addTo(map);
            if (grid.chosen) {
                const outline = {color: "#111111", weight: 2.5, fill: false, interactive: false};
                rectangle(...grid.chosen, outline).addTo(map);
            }
        })({{ this._parent.get_name() }});
        {% endmacro %}
    """)

    def __init__(self, city: City, colours: list[str], words: list[str], chosen: tuple[int, int] | None) -> None:
        super().__init__()
        box = {"north": city.north, "south": city.south, "west": city.west, "east": city.east}
        self.grid = {**box, "rows": city.rows, "cols": city.cols, "words": words, "chosen": chosen}
        self.colours = colours


def base_map(
    city: City,
    raster: str | None,
    tiles_url: str | None,
    tiles_attribution: str,
    outlines: tuple[dict[str, Any], ...] = (),
) -> folium.Map:
    """Make the part of a city's map that stays the same from run to run.

    Parameters
    ----------
    city
        The city, whose box the map shows at first.
    raster
        The picture of where vehicles report as a data URI (see `street_picture`); None without records.
    tiles_url
        The address of a tile server to use instead, with {z}/{x}/{y}; None uses the picture.
    tiles_attribution
        The attribution that the tile server asks for.
    outlines
        GeoJSON geometries of the named areas.

    Returns
    -------
    folium.Map
        The map without cells.
    """
    bounds = [[city.south, city.west], [city.north, city.east]]
    centre = [(city.south + city.north) / 2, (city.west + city.east) / 2]
    the_map = _OfflineMap(
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
    figure.header.add_child(folium.Element(_STYLE))
    if tiles_url:
        # A space: folium insists on an attribution.
        folium.TileLayer(tiles_url, attr=tiles_attribution or " ").add_to(the_map)
    elif raster:
        folium.raster_layers.ImageOverlay(raster, bounds, pixelated=False).add_to(the_map)
    if outlines:
        # Above the cells, and clicks go through to them.
        folium.map.CustomPane("areas", z_index=450, pointer_events=False).add_to(the_map)
        folium.GeoJson(_features(outlines), pane="areas", interactive=False, control=False).add_to(the_map)
    the_map.fit_bounds(bounds)
    _MoveTogether(city).add_to(the_map)
    return the_map


def _features(outlines: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {"style": _AREA_STYLE}, "geometry": outline} for outline in outlines]
    return {"type": "FeatureCollection", "features": features}


def cell_layer(
    city: City, colours: list[str], words: list[str], chosen: tuple[int, int] | None = None
) -> folium.FeatureGroup:
    """Make the map's layer of cells, which changes from run to run.

    Parameters
    ----------
    city
        The city.
    colours
        Each cell's colour, #rrggbbaa, row after row; empty where there is nothing to show.
    words
        Each cell's tooltip, in the same order.
    chosen
        Row and column of the cell to outline; None outlines none.

    Returns
    -------
    folium.FeatureGroup
        The layer.
    """
    group = folium.FeatureGroup(control=False)
    _Cells(city, colours, words, chosen).add_to(group)
    return group
