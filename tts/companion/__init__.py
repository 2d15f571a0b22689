"""What ties notebooks, profiles, figures and README together."""
