"""How a piece is divided: what is read of a clip, which texts guide which frames."""
