"""How clients and priorities share the workers: the return of generations before they are complete."""
