"""What belongs to a visitor: sessions and their chats, in memory alone."""
