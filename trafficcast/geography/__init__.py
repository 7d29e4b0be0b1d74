"""Where things lie: cells, polygons, named areas and zones."""
